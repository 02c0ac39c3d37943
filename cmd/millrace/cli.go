package main

import (
	"io"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// cli is the command line. Every flag is also an environment variable
// (MILLRACE_ and its name) and a key of the configuration file (its name).
type cli struct {
	Config string `help:"YAML file with flags, one \"name: value\" a line. The command line and the environment go before it." placeholder:"FILE"`

	settings `embed:""`

	All       struct{} `cmd:"" help:"Run everything in one process, with a Redis, an S3 server and a database of its own unless others are named."`
	Ingest    struct{} `cmd:"" help:"Run the service that streamers publish to."`
	Transcode struct{} `cmd:"" help:"Run the service that makes the renditions."`
	Edge      struct{} `cmd:"" help:"Run the service that viewers get video from."`
	API       struct{} `cmd:"" name:"api" help:"Run the service with the web pages, the HTTP API and the channels."`
	Chat      struct{} `cmd:"" help:"Run the service that carries chat."`
	Token     struct {
		Create struct {
			User string `required:"" help:"Whose token it is: 1 to 25 of a-z, 0-9 and _, not beginning with _." placeholder:"NAME"`
		} `cmd:"" help:"Make a token with which --user writes in chat, and print it, once, on the last line. Earlier ones go on working."`
		List   struct{} `cmd:"" help:"List who has tokens."`
		Revoke struct {
			User string `required:"" help:"Whose tokens stop working." placeholder:"NAME"`
		} `cmd:"" help:"Take all tokens of --user back."`
	} `cmd:"" help:"Make tokens for chat; this works while millrace runs and while it doesn't."`
	Channel struct {
		Create struct {
			Name string `arg:"" help:"1 to 25 of a-z, 0-9 and _, not beginning with _."`
		} `cmd:"" help:"Make a channel and print its stream key, once, on the last line."`
		List     struct{} `cmd:"" help:"List the channels."`
		ResetKey struct {
			Name string `arg:"" help:"The channel's name."`
		} `cmd:"" help:"Give a channel another stream key and print it, once, on the last line. The earlier key stops working; who publishes with it is ended, the broadcast waits for the new one."`
		Kick struct {
			Name string `arg:"" help:"The channel's name."`
		} `cmd:"" help:"End a channel's publisher and its broadcast; for 30 s nobody can begin another one."`
		Disable struct {
			Name string `arg:"" help:"The channel's name."`
		} `cmd:"" help:"End a channel's broadcast, and let nobody publish to it any more."`
		Enable struct {
			Name string `arg:"" help:"The channel's name."`
		} `cmd:"" help:"Take \"disable\" back: the stream key works again."`
		Delete struct {
			Name string `arg:"" help:"The channel's name."`
		} `cmd:"" help:"End a channel's broadcast and delete the channel with its stream key. Its name is free then."`
		Set struct {
			Name  string `arg:"" help:"The channel's name."`
			Quota quota  `help:"What is stored of the channel at most, such as 20GB; none: no bound, also if --channel-quota gives one." placeholder:"SIZE"`
		} `cmd:"" help:"Give a channel a --grace or --redundancy of its own, from its next broadcast on, or a --quota; \"default\" takes it back."`
	} `cmd:"" help:"Make, list and end channels; this works while millrace runs and while it doesn't."`
	Peek struct {
		URL string `arg:"" name:"url" help:"Such as http://127.0.0.1:7080/follow/BROADCAST."`
	} `cmd:"" help:"Print what a service answers to other services, at a URL on its --private, to see what happens inside."`
	Version struct{} `cmd:"" help:"Print the version."`

	// given holds the flags that stand on the command line, not in the
	// environment or the file.
	given map[string]bool
}

const description = `A live video platform: streamers publish with OBS or FFmpeg, viewers watch in the browser.

Every flag can also be given as an environment variable (--dvr-window as MILLRACE_DVR_WINDOW) and in a --config file (dvr-window: 10m).`

// parse reads the command line. An empty command means that help was printed.
func parse(args []string, stdout, stderr io.Writer) (c *cli, command string, err error) {
	file, err := loadConfig(configPath(args))
	if err != nil {
		return nil, "", err
	}
	c = new(cli)
	helped := false
	parser, err := kong.New(c,
		kong.Name("millrace"),
		kong.Description(description),
		kong.PostBuild(nameEnvironment),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Resolvers(file),
	)
	if err != nil {
		return nil, "", err
	}
	k, err := parser.Parse(args)
	if helped {
		return c, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	c.given = make(map[string]bool)
	for _, p := range k.Path {
		if p.Flag != nil && !p.Resolved {
			c.given[p.Flag.Name] = true
		}
	}
	c.noteShownSecrets()
	if k.Command() == "version" {
		return c, k.Command(), nil
	}
	if err := c.check(); err != nil {
		return nil, "", err
	}
	return c, k.Command(), nil
}

// noteShownSecrets notes which secrets stand on the command line.
func (c *cli) noteShownSecrets() {
	for _, flag := range []string{"private-secret", "ops-token", "s3-access-key", "s3-secret-key"} {
		if c.given[flag] {
			c.shown = append(c.shown, "--"+flag)
		}
	}
	for flag, address := range map[string]string{"redis": c.Redis, "database": c.Database} {
		if c.given[flag] && holdsPassword(address) {
			c.shown = append(c.shown, "--"+flag)
		}
	}
	slices.Sort(c.shown)
}

// holdsPassword reports whether a URL has a password in it.
func holdsPassword(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false // it is refused
	}
	_, set := u.User.Password()
	return set || u.Query().Has("password")
}

// nameEnvironment gives every flag its environment variable; kong's own names
// would take "s3" apart.
func nameEnvironment(k *kong.Kong) error {
	for _, flag := range k.Model.Flags {
		if flag.Name != "help" {
			flag.Envs = []string{"MILLRACE_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))}
			flag.Tag.Envs = flag.Envs
		}
	}
	return nil
}

// configPath finds the configuration file, which must be read before kong runs.
func configPath(args []string) string {
	for i, a := range args {
		if path, ok := strings.CutPrefix(a, "--config="); ok {
			return path
		}
		if a == "--config" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return os.Getenv("MILLRACE_CONFIG")
}

// release is set by the linker when a release is built.
var release string

func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v == "(devel)" {
			return s.Value
		}
	}
	return v
}
