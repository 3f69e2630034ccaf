package web

import (
	"context"
	"embed"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/bounded"
	"fiefdom/tuntap"
)

// Source is where the page's content comes from.
type Source struct {
	Self     func() emperor.Self
	Vassals  func(context.Context) []emperor.Status
	Logs     func(vassal string, last int) []emperor.LogLine
	Events   func(vassal string, last int) []emperor.Event // of all with ""; the newest first
	Drops    func(ctx context.Context, vassal string) ([]tuntap.PeerDrops, error)
	Networks func(context.Context) ([]tuntap.NetworkStats, error) // nil, as Drops: there are none
}

// Options are what a page is served with.
type Options struct {
	Source
	Key     string // that readers have to give as a password; empty: none
	KeyFile string // where they find it
	Log     *slog.Logger
}

// Bounds of the server.
const (
	connections = 32               // at once; a browser has up to six
	headers     = 16 << 10         // bytes of a request's headers
	silence     = 5 * time.Second  // for a request to come whole
	patience    = 30 * time.Second // for an answer to be taken, and for the next request
)

// Serve answers on l, which it closes, until ctx is done.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	w := &watch{ask: o.Vassals}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { w.run(ctx) })
	server := &http.Server{
		Handler: newGuard(o, routes(&site{Source: o.Source, watch: w, ctx: ctx})), MaxHeaderBytes: headers, DisableGeneralOptionsHandler: true,
		ReadTimeout: silence, WriteTimeout: patience, IdleTimeout: patience,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	bound := bounded.Listen(l, connections)
	server.ConnState = bound.State
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(bound); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

//go:embed assets
var assets embed.FS

// site answers the questions that the guard lets through.
type site struct {
	Source
	watch *watch
	ctx   context.Context //nolint:containedctx // the server's: a look is for all who ask, whoever of them leaves
}

func routes(s *site) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.overview)
	mux.HandleFunc("GET /vassal", s.vassal)
	mux.HandleFunc("GET /events", s.events)
	for _, name := range []string{"style.css", "live.js", "icon.svg"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, assets, "assets/"+name) })
	}
	s.api(mux)
	return mux
}
