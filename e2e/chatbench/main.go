// Command chatbench compares chat's engine with others under the same load: make bench-chat.
//
//	chatbench run                     measures and prints tables
//	chatbench server ENGINE ADDRESS   one server, as run starts it
//	chatbench load ...                the load, in a process of its own, as run starts it
//
// It is a module of its own, so that the peers aren't among the product's dependencies.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	if err := start(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chatbench:", err)
		os.Exit(1)
	}
}

func start(args []string) error {
	switch {
	case len(args) >= 1 && args[0] == "run":
		return run(args[1:])
	case len(args) == 4 && args[0] == "server":
		return serve(args[1], args[2], args[3] == "tls")
	case len(args) == 2 && args[0] == "load":
		var o loadOptions
		if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
			return err
		}
		return load(o)
	}
	return fmt.Errorf("usage: chatbench run [flags]")
}
