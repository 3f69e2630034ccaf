package emperor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"fiefdom/internal/ini"
)

// APISocket is the control API's socket in the runtime directory: HTTP and
// JSON. Root may do all; others see their own vassals only.
const APISocket = "api.sock"

// Bounds of the API.
const (
	apiSilence = 5 * time.Second  // for a request to come, and for an answer to be taken
	apiTimeout = 30 * time.Second // for a stop or start to be done
)

// ServeAPI answers until ctx is done.
func (e *Emperor) ServeAPI(ctx context.Context) error {
	path := e.Instance.Path(APISocket)
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("control API: %w", err)
	}
	// Everyone may connect; what he may do is decided by his uid.
	if err := os.Chmod(path, 0o666); err != nil {
		return errors.Join(err, l.Close())
	}
	server := &http.Server{
		Handler:           brisk(e.routes()),
		ReadHeaderTimeout: apiSilence,
		IdleTimeout:       apiSilence,
		MaxHeaderBytes:    8 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerUID(c))
		},
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(newCallers(l, apiClients, e.turnAway)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control API: %w", err)
	}
	return nil
}

type peerKey struct{}

// brisk waits neither for bodies, which no request of ours has, nor for
// clients that do not read.
func brisk(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := http.NewResponseController(w)
		if r.ContentLength != 0 {
			_ = conn.SetReadDeadline(time.Now().Add(apiSilence))
			http.Error(w, "requests have no body here", http.StatusBadRequest)
			return
		}
		if conn.SetWriteDeadline(time.Now().Add(apiTimeout+apiSilence)) == nil {
			next.ServeHTTP(w, r)
		}
	})
}

func (e *Emperor) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range e.endpoints() {
		mux.HandleFunc(pattern, handle)
	}
	return mux
}

// endpoints are all that can be asked. Who may ask is each one's to say: a test
// goes through all of them as an owner.
func (e *Emperor) endpoints() map[string]http.HandlerFunc {
	all := map[string]http.HandlerFunc{
		"GET /emperor":                 e.apiSelf,
		"POST /emperor/upgrade":        e.apiUpgrade,
		"GET /events":                  e.apiEvents,
		"GET /firewall":                e.apiRules,
		"POST /firewall/change":        e.apiChangeRule,
		"POST /firewall/reload":        e.apiReloadRules,
		"GET /hosts":                   e.apiHosts,
		"POST /hosts":                  e.apiHosts,
		"GET /security":                e.apiSecurity,
		"GET /vassals":                 e.apiList,
		"GET /vassals/{name}":          e.apiOne,
		"GET /vassals/{name}/logs":     e.apiLogs,
		"GET /vassals/{name}/explain":  e.apiExplain,
		"GET /vassals/{name}/drops":    e.apiDrops,
		"GET /vassals/{name}/capture":  e.apiCapture,
		"GET /vassals/{name}/security": e.apiSecurityOf,
		"POST /vassals/{name}/reload":  e.apiReload,
	}
	for word, ev := range map[string]event{"start": start, "stop": stop, "restart": restart} {
		all["POST /vassals/{name}/"+word] = func(w http.ResponseWriter, r *http.Request) { e.apiDo(w, r, ev) }
	}
	return all
}

func mayTouch(r *http.Request, s Status) bool {
	uid, ok := r.Context().Value(peerKey{}).(uint32)
	return ok && mayBeTouched(uid, s)
}

// mayBeTouched says whether a user may see a vassal, and tell it what to do.
func mayBeTouched(uid uint32, s Status) bool {
	return uid == 0 || uid == s.owner.uid || int(uid) == os.Getuid()
}

func (e *Emperor) apiList(w http.ResponseWriter, r *http.Request) {
	visible := e.known(func(s *Status) bool { return mayTouch(r, *s) })
	if visible == nil {
		visible = []Status{} // the emperor is stopping
	}
	e.measure(r.Context(), visible)
	answer(w, visible)
}

// find looks a vassal up for a request; without it the answer is 404, also
// for a vassal that is not the asker's.
func (e *Emperor) find(w http.ResponseWriter, r *http.Request) (Status, bool) {
	name := r.PathValue("name")
	var names []string // that the asker may see
	one := e.known(func(s *Status) bool {
		if !mayTouch(r, *s) {
			return false
		}
		names = append(names, s.Name)
		return s.Name == name
	})
	if len(one) > 0 {
		return one[0], true
	}
	uid, _ := r.Context().Value(peerKey{}).(uint32)
	http.Error(w, noVassal(name, names, uid), http.StatusNotFound)
	return Status{}, false
}

// noVassal says that there is none of this name among those that a user may see.
func noVassal(name string, names []string, uid uint32) string {
	text := fmt.Sprintf("no vassal %q", name)
	if near := ini.Similar(name, names); near != "" {
		return fmt.Sprintf("%s; did you mean %q?", text, near)
	}
	if uid != 0 && int(uid) != os.Getuid() {
		text += fmt.Sprintf(" among those of uid %d; root sees all", uid)
	}
	return text
}

func (e *Emperor) apiOne(w http.ResponseWriter, r *http.Request) {
	if s, ok := e.find(w, r); ok {
		one := []Status{s}
		e.measure(r.Context(), one)
		if e.Closed != nil && len(s.Published) > 0 {
			one[0].Warnings = append(slices.Clone(s.Warnings), e.Closed(s.Addresses)...)
		}
		answer(w, one[0])
	}
}

// apiDo tells a vassal what to do and answers when it is done or has failed.
func (e *Emperor) apiDo(w http.ResponseWriter, r *http.Request, ev event) {
	s, ok := e.find(w, r)
	if !ok {
		return
	}
	before := -1
	e.call(func() {
		if v := e.vassals[s.Name]; v != nil && !v.leaving() {
			before = v.turns()
			v.backoff.clear()
			e.happen(v, ev)
		}
	})
	e.awaitState(w, r, s.Name, func(s Status, turns int) bool {
		if ev == stop {
			return s.State == Stopped
		}
		return s.State == Running && (ev == start || turns > before) || s.State == Sleeping && turns > before || s.State == Backoff || s.State == Invalid
	})
}

// apiReload reads the ini again, as a touch does.
func (e *Emperor) apiReload(w http.ResponseWriter, r *http.Request) {
	s, ok := e.find(w, r)
	if !ok {
		return
	}
	before := -1
	e.call(func() {
		if v := e.vassals[s.Name]; v != nil {
			before = v.turns()
			v.err = ""
			e.queue(v.file)
			e.expandQueued()
		}
	})
	e.awaitState(w, r, s.Name, func(s Status, turns int) bool {
		return (s.State == Running || s.State == Sleeping) && turns > before || s.Error != "" && s.State != Stopping && s.State != Starting
	})
}

// awaitState answers with the status as soon as done says so.
func (e *Emperor) awaitState(w http.ResponseWriter, r *http.Request, name string, done func(Status, int) bool) {
	deadline := time.After(apiTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		type seen struct {
			status Status
			turns  int
			ok     bool
		}
		now := make(chan seen, 1)
		e.call(func() {
			if v := e.vassals[name]; v != nil {
				now <- seen{e.statusOf(v), v.turns(), true}
			} else {
				now <- seen{}
			}
		})
		select {
		case s := <-now:
			if !s.ok {
				http.Error(w, fmt.Sprintf("vassal %q is gone", name), http.StatusNotFound)
				return
			}
			if done(s.status, s.turns) {
				answer(w, s.status)
				return
			}
		case <-e.stopped:
			http.Error(w, "the emperor is stopping", http.StatusServiceUnavailable)
			return
		case <-r.Context().Done():
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			http.Error(w, fmt.Sprintf("vassal %q is not there yet after %s; see its status", name, apiTimeout), http.StatusGatewayTimeout)
			return
		case <-r.Context().Done():
			return
		}
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that left has no use for it
}
