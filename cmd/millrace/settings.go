package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"millrace/api/store"
	"millrace/internal/seal"
)

// settings are the flags that all commands share.
type settings struct {
	Data         string     `default:"./data" help:"Directory for everything that is kept (default ${default})." placeholder:"DIR" group:"Storage:"`
	Redis        string     `help:"Redis: redis://, rediss:// or unix:// URL; with ?master_name= its Sentinels. Default: a redis-server of our own (only all)." placeholder:"URL" group:"Storage:"`
	Database     string     `help:"Accounts and channels: postgres:// or sqlite:// URL. Default: an SQLite file in --data." placeholder:"URL" group:"Storage:"`
	S3Bucket     string     `name:"s3-bucket" help:"Bucket for segments. Default: an S3 server of our own over --data (only all)." placeholder:"NAME" group:"Storage:"`
	S3Endpoint   string     `name:"s3-endpoint" help:"Base URL of an S3-compatible server. Default: AWS." placeholder:"URL" group:"Storage:"`
	S3Region     string     `name:"s3-region" default:"us-east-1" help:"The bucket's region (default ${default})." placeholder:"NAME" group:"Storage:"`
	S3AccessKey  secretText `name:"s3-access-key" help:"Better given as MILLRACE_S3_ACCESS_KEY. Default: what the AWS tools use." placeholder:"KEY" group:"Storage:"`
	S3SecretKey  secretText `name:"s3-secret-key" help:"Better given as MILLRACE_S3_SECRET_KEY." placeholder:"KEY" group:"Storage:"`
	SpoolMax     byteSize   `default:"2GB" help:"Disk space for segments on their way to S3 (default ${default})." placeholder:"SIZE" group:"Storage:"`
	MinFree      freeSpace  `help:"What is to stay free of the disk: a size, or per cent. Below it the oldest media goes first. Default: 5%, 2GB at most." placeholder:"SIZE" group:"Storage:"`
	ChannelQuota quota      `default:"none" help:"What is stored of each channel at most; a channel can have one of its own (default ${default})." placeholder:"SIZE" group:"Storage:"`
	CacheMax     byteSize   `default:"256MB" help:"Memory of an edge for segments (default ${default})." placeholder:"SIZE" group:"Storage:"`

	HTTP           string      `name:"http" default:":8080" help:"Address for pages, API and video (default ${default})." placeholder:"ADDR" group:"Addresses:"`
	HTTPS          string      `name:"https" default:":8443" help:"The same with TLS, once there is a certificate (default ${default})." placeholder:"ADDR" group:"Addresses:"`
	RTMP           string      `name:"rtmp" default:":1935" help:"Address that streamers publish to (default ${default})." placeholder:"ADDR" group:"Addresses:"`
	RTMPS          string      `name:"rtmps" default:":1936" help:"The same with TLS, once there is a certificate (default ${default})." placeholder:"ADDR" group:"Addresses:"`
	IRC            string      `name:"irc" default:":6667" help:"Address of chat for clients of IRC (default ${default})." placeholder:"ADDR" group:"Addresses:"`
	IRCS           string      `name:"ircs" default:":6697" help:"The same with TLS, once there is a certificate (default ${default})." placeholder:"ADDR" group:"Addresses:"`
	Ops            string      `default:"127.0.0.1:9190" help:"Address for operators: /healthz, /readyz, /metrics, /debug/pprof (default ${default})." placeholder:"ADDR" group:"Addresses:"`
	Private        string      `default:"127.0.0.1:7080" help:"Address that services use among each other (default ${default})." placeholder:"ADDR" group:"Addresses:"`
	Advertise      string      `help:"Base URL at which other services reach --private. Default: its own address." placeholder:"URL" group:"Addresses:"`
	PublicURL      string      `name:"public-url" help:"Base URL at which people reach the pages. Default: this machine's address." placeholder:"URL" group:"Addresses:"`
	EdgeURL        string      `name:"edge-url" help:"Base URL at which players reach this edge, where there are two or more: players change to another when theirs fails. Default: none." placeholder:"URL" group:"Addresses:"`
	ListChannels   string      `default:"live" enum:"live,all" help:"Which channels anybody may list at /api/v1/channels: live, or all (default ${default})." placeholder:"WHICH" group:"Addresses:"`
	TrustedProxies []string    `help:"Proxies whose X-Forwarded-For is believed, and that may have as many connections as fit, as addresses or networks (10.0.0.0/8,...). Default: none." placeholder:"NET" group:"Addresses:"`
	PrivateSecret  seal.Secret `help:"Secret that the services share, at least 16 characters. Better given as MILLRACE_PRIVATE_SECRET. Default: one of our own, kept in --data (only all)." placeholder:"TEXT" group:"Addresses:"`
	OpsToken       secretText  `help:"Whoever asks --ops must show it (Authorization: Bearer), but for /healthz and /readyz; needed when --ops isn't loopback. Better given as MILLRACE_OPS_TOKEN." placeholder:"TEXT" group:"Addresses:"`

	TLSCert string `name:"tls-cert" help:"Certificate file (PEM, with its chain): switches HTTPS and RTMPS on; read again when it changes." placeholder:"FILE" group:"TLS:"`
	TLSKey  string `name:"tls-key" help:"Its key file (PEM)." placeholder:"FILE" group:"TLS:"`

	PrivateTLSCert string `name:"private-tls-cert" help:"Certificate file of --private (PEM, with its chain): services then reach it by TLS; read again when it changes." placeholder:"FILE" group:"TLS:"`
	PrivateTLSKey  string `name:"private-tls-key" help:"Its key file (PEM)." placeholder:"FILE" group:"TLS:"`
	PrivateTLSCA   string `name:"private-tls-ca" help:"Certificates (PEM) that other services' ones must be signed by. Default: the system's." placeholder:"FILE" group:"TLS:"`

	Ladder       string        `help:"Renditions to make below the source, such as 720p60=3000k,480p30=1400k. Default: by the source's size and frame rate." placeholder:"LIST" group:"Video:"`
	EncodeCores  float64       `help:"CPU cores that renditions may take, such as 1.5: leave the rest to what else this machine does. Default: all." placeholder:"N" group:"Video:"`
	EncodeMemory byteSize      `help:"Memory that renditions may take, such as 2GB. Default: three quarters of the machine's." placeholder:"SIZE" group:"Video:"`
	DVRWindow    time.Duration `name:"dvr-window" default:"10m" help:"How far back viewers can seek in a live broadcast (default ${default})." placeholder:"TIME" group:"Video:"`
	Retention    time.Duration `default:"2h" help:"How long a broadcast is kept after its end (default ${default})." placeholder:"TIME" group:"Video:"`
	Keep         bool          `help:"Running broadcasts keep all from their beginning, not only what viewers can seek back to." group:"Video:"`
	FFmpeg       string        `name:"ffmpeg" default:"ffmpeg" help:"The ffmpeg program, with libx264 (default ${default} in PATH)." placeholder:"FILE" group:"Video:"`

	Grace      gracePeriod   `default:"1m" help:"How long a broadcast waits for its streamer to come back; at least 1s (default ${default})." placeholder:"TIME" group:"Survival:"`
	Redundancy redundancy    `default:"1" help:"Workers that make each broadcast at a time: 1, or 2 for a hot standby (default ${default})." placeholder:"N" group:"Survival:"`
	MaxAhead   time.Duration `default:"15s" help:"How far a publisher's timestamps may run ahead of the clock before it is slowed down (default ${default})." placeholder:"TIME" group:"Survival:"`
	Drain      time.Duration `default:"20s" help:"How long a service that is asked to stop goes on until others have taken over (default ${default}; all doesn't wait)." placeholder:"TIME" group:"Survival:"`

	LogFormat string     `default:"auto" enum:"auto,text,json" help:"text, json, or auto: text on a terminal (default ${default})." placeholder:"FORMAT" group:"Logs:"`
	LogLevel  slog.Level `default:"info" help:"debug, info, warn or error (default ${default})." placeholder:"LEVEL" group:"Logs:"`

	// shown are the flags with secrets that stand on the command line.
	shown []string
}

// secretText prints as "[redacted]".
type secretText string

func (secretText) String() string       { return "[redacted]" }
func (secretText) GoString() string     { return "[redacted]" }
func (secretText) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// minGrace is the shortest grace period: encoders need as long to come back.
const minGrace = time.Second

// gracePeriod is a channel's or all channels' grace period; 0 is "default".
type gracePeriod time.Duration

// UnmarshalText reads a time such as 90s, or "default".
func (g *gracePeriod) UnmarshalText(text []byte) error {
	if s := string(text); s == "default" || s == "" {
		*g = 0
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no time; write 90s, 2m, or default", text)
	}
	if d < minGrace {
		return fmt.Errorf("%s is too short; at least %s, which ends a broadcast nearly at once", d, minGrace)
	}
	*g = gracePeriod(d)
	return nil
}

// redundancy is the number of workers of a broadcast, 1 or 2; 0 is "default".
type redundancy int

// UnmarshalText reads 1, 2 or "default".
func (r *redundancy) UnmarshalText(text []byte) error {
	switch string(text) {
	case "1", "2":
		*r = redundancy(text[0] - '0')
	case "default", "":
		*r = 0
	default:
		return fmt.Errorf("%q is no number of workers; write 1, 2, or default", text)
	}
	return nil
}

// check finds what is wrong with the settings whatever the command is, and
// makes paths absolute: the S3 server changes the working directory.
func (s *settings) check() error {
	if err := s.makeAbsolute(); err != nil {
		return err
	}
	if err := s.checkAddresses(); err != nil {
		return err
	}
	if (s.TLSCert == "") != (s.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key belong together: one of them is missing")
	}
	if (s.PrivateTLSCert == "") != (s.PrivateTLSKey == "") {
		return errors.New("--private-tls-cert and --private-tls-key belong together: one of them is missing")
	}
	if s.S3Bucket == "" && s.S3Endpoint != "" {
		return errors.New("--s3-endpoint needs --s3-bucket")
	}
	if (s.S3AccessKey == "") != (s.S3SecretKey == "") {
		return errors.New("MILLRACE_S3_ACCESS_KEY and MILLRACE_S3_SECRET_KEY belong together: one of them is missing")
	}
	for _, d := range []struct {
		flag      string
		is, least time.Duration
	}{{"dvr-window", s.DVRWindow, 30 * time.Second}, {"retention", s.Retention, 0}, {"drain", s.Drain, 0}, {"max-ahead", s.MaxAhead, time.Second}} {
		if d.is < d.least {
			return fmt.Errorf("--%s: %s is too short; at least %s", d.flag, d.is, d.least)
		}
	}
	_, err := s.trustedProxies()
	return err
}

// makeAbsolute makes the paths among the settings absolute.
func (s *settings) makeAbsolute() error {
	paths := []*string{&s.Data, &s.TLSCert, &s.TLSKey, &s.PrivateTLSCert, &s.PrivateTLSKey, &s.PrivateTLSCA}
	if strings.ContainsRune(s.FFmpeg, filepath.Separator) { // else it is looked for in PATH
		paths = append(paths, &s.FFmpeg)
	}
	file, isFile := strings.CutPrefix(s.Database, "sqlite://")
	if isFile {
		paths = append(paths, &file)
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if s.Data == "" {
		return errors.New("--data names no directory")
	}
	if isFile {
		s.Database = "sqlite://" + file
	}
	return nil
}

// checkAddresses finds addresses to listen on, and URLs, that are none.
func (s *settings) checkAddresses() error {
	for _, a := range []struct{ flag, address string }{
		{"http", s.HTTP}, {"https", s.HTTPS}, {"rtmp", s.RTMP}, {"rtmps", s.RTMPS}, {"irc", s.IRC}, {"ircs", s.IRCS}, {"ops", s.Ops}, {"private", s.Private},
	} {
		_, port, err := net.SplitHostPort(a.address)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("--%s: %q is no address; write :8080 or 127.0.0.1:8080", a.flag, a.address)
		}
	}
	for _, u := range []struct{ flag, url string }{
		{"advertise", s.Advertise}, {"public-url", s.PublicURL}, {"edge-url", s.EdgeURL}, {"s3-endpoint", s.S3Endpoint},
	} {
		if p, err := url.Parse(u.url); u.url != "" && (err != nil || p.Host == "" || p.Scheme != "http" && p.Scheme != "https") {
			return fmt.Errorf("--%s: %q is no URL; write https://host or http://host:port", u.flag, u.url)
		}
	}
	return s.checkAdvertise()
}

// checkAdvertise finds an --advertise that other services can't ask: what they sign
// is the address without a path, and TLS is spoken on both sides or on none.
func (s *settings) checkAdvertise() error {
	if s.Advertise == "" {
		return nil
	}
	u, err := url.Parse(s.Advertise)
	if err != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("--advertise: %q has more than a host and a port; write http://10.0.0.5:7080", s.Advertise)
	}
	if tls := s.PrivateTLSCert != ""; tls != (u.Scheme == "https") {
		return fmt.Errorf("--advertise: %q must begin with https:// if there is a --private-tls-cert, and only then", s.Advertise)
	}
	return nil
}

// trustedProxies reads --trusted-proxies.
func (s *settings) trustedProxies() ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, text := range s.TrustedProxies {
		if addr, err := netip.ParseAddr(text); err == nil {
			list = append(list, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("--trusted-proxies: %q is no address or network; write 10.0.0.1 or 10.0.0.0/8", text)
		}
		list = append(list, p)
	}
	return list, nil
}

// databaseURL is --database or the SQLite file in --data.
func (s *settings) databaseURL() string {
	return cmp.Or(s.Database, store.SQLiteURL(filepath.Join(s.Data, "millrace.db")))
}

// advertise is the base URL of the private listener.
func (s *settings) advertise() string {
	scheme := "http://"
	if s.PrivateTLSCert != "" {
		scheme = "https://"
	}
	return cmp.Or(strings.TrimSuffix(s.Advertise, "/"), scheme+s.Private)
}
