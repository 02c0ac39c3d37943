package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"millrace/api/store"
	"millrace/chat"
	"millrace/internal/objects"
	"millrace/internal/private"
)

// process is one running millrace: its settings, its listeners, Redis, bucket and
// database, and its services. It is built and taken down by one goroutine.
type process struct {
	role     role
	settings settings
	log      *slog.Logger
	registry *prometheus.Registry

	layers    *layers
	shares    shares
	listeners listeners
	// certificate is that of the public listeners, privateCertificate that of the
	// private one; nil without TLS.
	certificate, privateCertificate *certificate
	// peers is nil where the role knows no other services.
	peers     *private.Peers
	ffmpeg    string
	openRedis func() (redis.UniversalClient, error)
	// bucket has connections of its own for the edge, and others for all else.
	bucket, edgeBucket *objects.Bucket
	storeDir           string // what the S3 server of our own keeps all in, if there is one
	store              *store.Store
	needs              []dependency
	demo               demo

	public, private *http.ServeMux
	chat            *chat.Service // nil in roles without it
	onClose         []func()
}

// serve runs the services of a role until ctx ends or one of them fails.
func serve(ctx context.Context, r role, s settings, stdout, stderr io.Writer) error {
	p := &process{
		role: r, settings: s, log: newLog(s, stderr), registry: newRegistry(),
		public: http.NewServeMux(), private: http.NewServeMux(),
	}
	takeOverLogs(p.log)
	if len(s.shown) > 0 {
		p.log.Warn("secrets on the command line are seen by every user of this machine: give them in the environment or in --config", "flags", strings.Join(s.shown, " "))
	}
	p.layers = newLayers(p.log, stopLimits(r, p.drain()))
	defer p.close()

	for _, step := range []func(context.Context) error{p.prepare, p.startBacking, p.startServices, p.startListeners} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				p.log.Debug("stopped while it started", "err", err)
				return nil
			}
			return err
		}
	}
	p.log.Info("millrace runs", "role", string(r), "version", version(), "data", s.Data)
	if r == roleAll {
		if err := printBanner(stdout, s, p.listeners, p.demo); err != nil {
			return fmt.Errorf("print where to publish and watch: %w", err)
		}
	}
	err := p.layers.run(ctx)
	if err == nil {
		p.log.Info("stopping")
	}
	return err
}

// prepare does all that can fail without having started anything.
func (p *process) prepare(ctx context.Context) (err error) {
	if err := p.settings.checkRole(p.role); err != nil {
		return err
	}
	if p.role.ownsData() {
		unlock, err := lockData(p.settings.Data)
		if err != nil {
			return err
		}
		p.onClose = append(p.onClose, unlock)
	}
	trusted, err := p.settings.trustedProxies()
	if err != nil {
		return err
	}
	if p.shares, err = shareDescriptors(p.log); err != nil {
		return err
	}
	if p.listeners, err = listen(p.role, p.settings, newGates(p.shares, trusted, p.registry, p.log)); err != nil {
		return err
	}
	p.onClose = append(p.onClose, p.listeners.close)
	if p.settings.TLSCert != "" && (p.role.public() || p.role.runs(roleIngest)) {
		if p.certificate, err = newCertificate("--tls-cert and --tls-key", p.settings.TLSCert, p.settings.TLSKey, p.log); err != nil {
			return err
		}
		p.layers.start(levelPrivate, "certificate", p.certificate.Run)
	}
	if p.role.peer() {
		if err := p.meetPeers(); err != nil {
			return err
		}
	}
	if p.role.runs(roleTranscode) {
		if p.ffmpeg, err = findFFmpeg(ctx, p.settings.FFmpeg); err != nil {
			return err
		}
	}
	return nil
}

// checkRole finds what a role needs and the settings don't say.
func (s *settings) checkRole(r role) error {
	if r != roleAll && s.Redis == "" {
		return fmt.Errorf("millrace %s needs --redis: the URL of the Redis that all services share", r)
	}
	if r != roleAll && r.bucket() && s.S3Bucket == "" {
		return fmt.Errorf("millrace %s needs --s3-bucket: the bucket that transcode and edge share", r)
	}
	if err := s.checkOps(); err != nil {
		return err
	}
	if r != roleAll && r.peer() && s.PrivateSecret == "" {
		return fmt.Errorf("millrace %s needs --private-secret: the same on all services, made once with \"openssl rand -hex 32\", best given as MILLRACE_PRIVATE_SECRET", r)
	}
	if !r.private() {
		return nil
	}
	host, _, _ := net.SplitHostPort(s.Private) // checked above
	if ip := net.ParseIP(host); s.Advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
		return fmt.Errorf("--private %s has no address that others could use: set --advertise to the URL at which they reach it, such as http://10.0.0.5:7080", s.Private)
	}
	return nil
}

// drain is how long a service that is asked to stop goes on. In `millrace all`
// there is nobody who could take over.
func (p *process) drain() time.Duration {
	if p.role == roleAll {
		return 0
	}
	return p.settings.Drain
}

// redis returns a client of its own for one service, so that the blocked reads
// of one take no connection from another.
func (p *process) redis() (redis.UniversalClient, error) {
	db, err := p.openRedis()
	if err != nil {
		return nil, err
	}
	p.onClose = append(p.onClose, func() { _ = db.Close() })
	return db, nil
}

// startListeners serves the services' handlers on the listeners.
func (p *process) startListeners(context.Context) error {
	l := p.listeners
	p.needs = append(p.needs, dependency{name: "process", check: func(context.Context) error {
		return p.layers.stopping()
	}})
	limits := p.layers.limits
	p.layers.start(levelPrivate, "ops listener",
		serveHTTP(newOpsServer(p.settings, p.registry, p.needs), l.ops, 0, limits[levelPrivate]/2))
	if l.private != nil {
		s := private.NewServer(p.peers.Guard(p.private))
		if p.privateCertificate != nil {
			s.TLSConfig = p.privateCertificate.config("h2", "http/1.1")
		}
		p.layers.start(levelPrivate, "private listener", serveHTTP(s, l.private, 0, limits[levelPrivate]/2))
	}
	public := func(s *http.Server, l net.Listener) func(context.Context) error {
		return serveHTTP(s, l, p.drain(), (limits[levelPublic]-p.drain())/2)
	}
	if l.http != nil {
		p.layers.start(levelPublic, "http listener", public(newPublicServer(p.world(), p.log), l.http))
	}
	if l.https != nil {
		s := newPublicServer(p.world(), p.log)
		s.TLSConfig = p.certificate.config("h2", "http/1.1")
		p.layers.start(levelPublic, "https listener", public(s, l.https))
	}
	return nil
}

// world is what public listeners serve. Clients of Twitch's IRC ask for a websocket at "/".
func (p *process) world() http.Handler {
	if p.chat == nil {
		return p.public
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if chat.WantsIRC(r) {
			p.chat.ServeIRC(w, r)
			return
		}
		p.public.ServeHTTP(w, r)
	})
}

// close takes everything down again, what was started last first.
func (p *process) close() {
	start := time.Now()
	p.layers.stop()
	for i := len(p.onClose) - 1; i >= 0; i-- {
		p.onClose[i]()
	}
	p.log.Debug("stopped", "after", time.Since(start))
}
