package emperor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// What the router is asked goes through as it is; who may ask is judged here.
func TestInspect(t *testing.T) {
	ends := make(chan net.Conn, 1)
	r := newRealm(t, func(e *Emperor) {
		e.Explain = func(_ context.Context, name string, q url.Values, sees Sees) (any, error) {
			if q.Get("proto") == "" {
				return nil, fmt.Errorf("%w: no proto", ErrBadQuery)
			}
			return map[string]any{"vassal": name, "all": sees(""), "own": sees(name), "other": sees("other")}, nil
		}
		e.Drops = func(context.Context, string) (any, error) { return nil, errors.New("no router") }
		e.Capture = func(context.Context, string, url.Values) (net.Conn, error) {
			ours, theirs := net.Pipe()
			ends <- theirs
			return ours, nil
		}
	})
	r.write(t, "blog", stays)
	r.awaitState(t, "blog", Running)
	for _, c := range []struct {
		uid  int
		path string
		code int
		want string
	}{
		{0, "/vassals/blog/explain?proto=6", http.StatusOK, `"all":true,"other":true,"own":true,"vassal":"blog"`},
		{0, "/vassals/blog/explain", http.StatusBadRequest, "no proto"},
		{0, "/vassals/nobody/explain?proto=6", http.StatusNotFound, "no vassal"},
		{61234, "/vassals/blog/explain?proto=6", http.StatusNotFound, "no vassal"},
		{61234, "/vassals/blog/drops", http.StatusNotFound, "no vassal"},
		{61234, "/vassals/blog/capture", http.StatusNotFound, "no vassal"},
		{0, "/vassals/blog/drops", http.StatusConflict, "no router"},
	} {
		if code, text := r.as(t, c.uid, http.MethodGet, c.path); code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("%s as %d: %d %s; want %d with %s", c.path, c.uid, code, text, c.code, c.want)
		}
	}
	go func() {
		router := <-ends
		_, _ = router.Write([]byte("packets"))
		router.Close()
	}()
	if code, text := r.as(t, 0, http.MethodGet, "/vassals/blog/capture"); code != http.StatusOK || text != "packets" {
		t.Errorf("%d %q", code, text)
	}
}

func TestInspectWithoutARouter(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", stays)
	r.awaitState(t, "blog", Running)
	for _, what := range []string{"explain", "drops", "capture"} {
		if code, text := r.as(t, 0, http.MethodGet, "/vassals/blog/"+what); code != http.StatusConflict || !strings.Contains(text, noNetwork) {
			t.Errorf("%s: %d %s", what, code, text)
		}
	}
}
