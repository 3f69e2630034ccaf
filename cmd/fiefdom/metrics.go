package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"fiefdom/internal/bounded"
	"fiefdom/vassal"
)

// Bounds of the metrics' server.
const (
	metricsClients = 4                // scrapes at once; others are told to come again
	metricsConns   = 64               // connections at once: each takes a descriptor of the emperor's
	metricsTime    = 10 * time.Second // for a scrape; Prometheus gives up after as long
	metricsHeaders = 16 << 10         // bytes of a request's headers
)

// metricsListener listens where metrics says; nil if it does not.
func (r *runner) metricsListener() (net.Listener, error) {
	return r.listenFor("metrics", r.config.Metrics, vassal.SocketRights{})
}

// collector joins the metrics with what they are read from.
func (r *runner) collector() *collector {
	c := &collector{vassals: r.emperor.Vassals, events: r.journal.Counts}
	if len(r.networks) > 0 {
		c.networks = r.keeper.Snapshot
	}
	return c
}

// serveMetrics answers scrapes until ctx is done. It closes l.
func serveMetrics(ctx context.Context, l net.Listener, c *collector, log *slog.Logger) error {
	all := prometheus.NewRegistry()
	all.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{
		MaxRequestsInFlight: metricsClients, Timeout: metricsTime,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
	}))
	server := &http.Server{
		Handler: mux, MaxHeaderBytes: metricsHeaders,
		ReadTimeout: metricsTime, WriteTimeout: 2 * metricsTime, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	bound := bounded.Listen(l, metricsConns)
	server.ConnState = bound.State
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(bound); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
