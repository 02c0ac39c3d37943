package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"millrace/api"
	"millrace/chat"
	"millrace/edge"
	"millrace/ingest"
	"millrace/transcode"
	"millrace/web"
)

// startServices builds the services of the role and runs them.
func (p *process) startServices(context.Context) error {
	for _, s := range []struct {
		role  role
		start func() error
	}{
		{roleAPI, p.startAPI}, // first: it brings the stream keys to Redis
		{roleTranscode, p.startTranscode},
		{roleEdge, p.startEdge},
		{roleIngest, p.startIngest},
		{roleChat, p.startChat},
	} {
		if !p.role.runs(s.role) {
			continue
		}
		if err := s.start(); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) startAPI() error {
	db, err := p.redis()
	if err != nil {
		return err
	}
	s, err := api.New(api.Config{
		Redis: db, Store: p.store, Web: web.Files(), ListAll: p.settings.ListChannels == "all",
		Log: p.log.With("service", "api"), Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	p.public.Handle("/", s.Handler())
	p.layers.start(levelServices, "api", s.Run)
	return nil
}

func (p *process) startEdge() error {
	db, err := p.redis()
	if err != nil {
		return err
	}
	proxies, err := p.settings.trustedProxies()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this edge: %w", err)
	}
	s, err := edge.New(edge.Config{
		ID: host + p.listeners.http.Addr().String(), Redis: db, Bucket: p.edgeBucket, Peers: p.peers,
		CacheBytes: int64(p.settings.CacheMax), DVRWindow: p.settings.DVRWindow, TrustedProxies: proxies,
		PublicURL: strings.TrimSuffix(p.settings.EdgeURL, "/"),
		Log:       p.log.With("service", "edge"), Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	p.public.Handle("/hls/", s.Handler())
	p.layers.start(levelServices, "edge", s.Run)
	p.layers.start(levelPublic, "announcement of the edge", s.Announce)
	return nil
}

func (p *process) startTranscode() error {
	db, err := p.redis()
	if err != nil {
		return err
	}
	s, err := transcode.New(transcode.Config{
		Redis: db, Bucket: p.bucket, Peers: p.peers,
		Ladder: p.settings.Ladder, EncodeCores: p.settings.EncodeCores, EncodeMemory: int64(p.settings.EncodeMemory), FFmpeg: p.ffmpeg,
		SpoolDir: filepath.Join(p.settings.Data, "spool"), SpoolBytes: int64(p.settings.SpoolMax),
		Retention: p.settings.Retention, DVRWindow: p.settings.DVRWindow, Drain: p.drain(),
		Keep: p.settings.Keep, Quota: max(0, int64(p.settings.ChannelQuota)), MinFree: p.settings.MinFree.of, StoreDir: p.storeDir,
		Log: p.log.With("service", "transcode"), Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	// Optional: a full disk mustn't take what is live from viewers, and a process that
	// is restarted for it, or gets no requests, has no more room than before.
	p.needs = append(p.needs, dependency{name: "disk", check: s.CheckRoom, optional: true})
	s.Private(p.private)
	p.layers.start(levelTranscode, "transcode", s.Run)
	return nil
}

func (p *process) startIngest() error {
	db, err := p.redis()
	if err != nil {
		return err
	}
	rtmps := p.listeners.rtmps
	if rtmps != nil {
		rtmps = tls.NewListener(rtmps, p.certificate.config())
	}
	s, err := ingest.New(ingest.Config{
		Redis: db, RTMP: p.listeners.rtmp, RTMPS: rtmps,
		Peers: p.peers,
		Grace: time.Duration(p.settings.Grace), Redundancy: int(p.settings.Redundancy), Drain: p.drain(), MaxAhead: p.settings.MaxAhead,
		Finish: p.layers.limits[levelIngest] - p.drain() - stopMargin,
		Log:    p.log.With("service", "ingest"), Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	s.Private(p.private)
	p.layers.start(levelIngest, "ingest", s.Run)
	return nil
}

func (p *process) startChat() error {
	db, err := p.redis()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this process of chat: %w", err)
	}
	ircs := p.listeners.ircs
	if ircs != nil {
		ircs = tls.NewListener(ircs, p.certificate.config())
	}
	s, err := chat.New(chat.Config{
		Redis: db, Process: host + p.listeners.http.Addr().String(), IRC: p.listeners.irc, IRCS: ircs,
		Origins: []string{strings.TrimSuffix(p.settings.PublicURL, "/")},
		Log:     p.log.With("service", "chat"), Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	p.public.Handle("/chat/", s.Handler())
	p.public.Handle("/irc", s.Handler())
	p.chat = s
	p.layers.start(levelServices, "chat", s.Run)
	return nil
}
