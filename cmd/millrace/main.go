// Command millrace is a self-hosted live video platform: `millrace all` runs
// every service in one process, `millrace ingest`, `transcode`, `edge` and
// `api` run one service each.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program: it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	// What millrace and its children write is for this user alone: keys are in it.
	syscall.Umask(0o077)
	c, command, err := parse(args, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "millrace: %v\nRun \"millrace --help\" for the commands and flags.\n", err)
		return exitUsage
	}
	if command == "" { // --help has answered
		return exitOK
	}
	takeOverLogs(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	defer stop()
	// The first signal ends millrace, the second one kills it.
	context.AfterFunc(ctx, stop)

	if err := c.execute(ctx, command, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "millrace: %v\n", err)
		return exitFailure
	}
	return exitOK
}

func endSignals() []os.Signal {
	s := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		s = append(s, syscall.SIGHUP)
	}
	return s
}

// execute runs one command.
func (c *cli) execute(ctx context.Context, command string, stdout, stderr io.Writer) error {
	switch command {
	case "version":
		_, err := fmt.Fprintln(stdout, "millrace", version())
		return err
	case "peek <url>":
		return peek(ctx, c.settings, c.Peek.URL, stdout)
	case "channel create <name>":
		return createChannel(ctx, c.settings, c.Channel.Create.Name, stdout, stderr)
	case "channel reset-key <name>":
		return resetKey(ctx, c.settings, c.Channel.ResetKey.Name, stdout, stderr)
	case "channel set <name>":
		return setChannel(ctx, c.settings, c.Channel.Set.Name, c.Channel.Set.Quota, c.given, stdout, stderr)
	case "token create":
		return createToken(ctx, c.settings, c.Token.Create.User, stdout, stderr)
	case "token list":
		return listTokens(ctx, c.settings, stdout)
	case "token revoke":
		return revokeTokens(ctx, c.settings, c.Token.Revoke.User, stdout, stderr)
	case "channel kick <name>":
		return kickPublisher(ctx, c.settings, c.Channel.Kick.Name, stdout, stderr)
	case "channel disable <name>":
		return disableChannel(ctx, c.settings, c.Channel.Disable.Name, stdout, stderr)
	case "channel enable <name>":
		return enableChannel(ctx, c.settings, c.Channel.Enable.Name, stdout, stderr)
	case "channel delete <name>":
		return deleteChannel(ctx, c.settings, c.Channel.Delete.Name, stdout, stderr)
	case "channel list":
		return listChannels(ctx, c.settings, stdout)
	}
	return serve(ctx, role(command), c.settings, stdout, stderr)
}
