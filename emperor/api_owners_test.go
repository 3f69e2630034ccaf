package emperor

import (
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An owner sees and commands his own vassals, and nobody else's: at every endpoint
// there is. Of another's vassal he does not even learn that it is there.
func TestEveryEndpointByOwners(t *testing.T) {
	const his, hers = 61200, 61201
	r := newRealm(t, func(e *Emperor) {
		e.Journal = e.Instance.OpenJournal(e.Log)
		t.Cleanup(e.Journal.Close)
		e.Log = slog.New(e.Journal.Handler(e.Log.Handler()))
	})
	for name, uid := range map[string]int{"blog": his, "shop": hers} {
		r.write(t, name, stays)
		if err := os.Chown(filepath.Join(r.dir, name+".ini"), uid, uid); err != nil {
			t.Fatal(err)
		}
		r.await(t, name, "its owner's", func(s Status) bool {
			code, _ := r.as(t, uid, "GET", "/vassals/"+name)
			return s.State == Running && code == http.StatusOK
		})
	}
	const (
		everybody = "everybody" // the same for all
		roots     = "root's"    // 403 for others
		filtered  = "filtered"  // a list of what is his
		owners    = "owners'"   // 404 for others
	)
	who := map[string]string{
		"GET /emperor": everybody, "POST /emperor/upgrade": roots, "GET /events": filtered, "GET /firewall": filtered, "POST /firewall/change": roots, "POST /firewall/reload": roots,
		"GET /hosts": roots, "POST /hosts": roots, "GET /vassals": filtered, "GET /security": filtered,
	}
	pid := r.await(t, "shop", "runs", func(s Status) bool { return s.PID > 0 }).PID
	patterns := slices.SortedFunc(maps.Keys(r.endpoints()), func(a, b string) int { // what stops a vassal comes last
		return strings.Compare(strings.ReplaceAll(a, "/stop", "/~"), strings.ReplaceAll(b, "/stop", "/~"))
	})
	for _, pattern := range patterns {
		method, path, _ := strings.Cut(pattern, " ")
		rule := who[pattern]
		if strings.Contains(path, "{name}") {
			rule = owners
		}
		ask := func(uid int, name string) (int, string) {
			return r.as(t, uid, method, strings.ReplaceAll(path, "{name}", name))
		}
		code, body := ask(his, "blog")
		switch rule {
		case everybody:
			if code != http.StatusOK || strings.Contains(body, "shop") {
				t.Errorf("%s: %d: %s", pattern, code, body)
			}
		case roots:
			if code != http.StatusForbidden {
				t.Errorf("%s: %d: %s", pattern, code, body)
			}
		case filtered:
			if code != http.StatusOK || strings.Contains(body, "shop") {
				t.Errorf("%s: %d: %s", pattern, code, body)
			}
			if code, body := ask(0, ""); code != http.StatusOK || path != "/firewall" && (!strings.Contains(body, "shop") || !strings.Contains(body, "blog")) {
				t.Errorf("%s by root: %d: %s", pattern, code, body)
			}
		case owners:
			if code == http.StatusNotFound || code == http.StatusForbidden {
				t.Errorf("%s of his own: %d: %s", pattern, code, body)
			}
			code, body = ask(his, "shop")
			none, nobody := ask(his, "wiki")
			if code != http.StatusNotFound || code != none || strings.ReplaceAll(body, "shop", "wiki") != nobody {
				t.Errorf("%s of another's: %d: %s\nof nobody's: %d: %s", pattern, code, body, none, nobody)
			}
		default:
			t.Errorf("%s: who may ask that? Write it here", pattern)
		}
	}
	for path, want := range map[string]string{"/events?vassal=shop": "", "/firewall?of=shop": "no network and no vassal", "/firewall?of=vassal:shop": "no network and no vassal"} {
		if _, body := r.as(t, his, "GET", path); strings.TrimSpace(body) != "" && want == "" || !strings.Contains(body, want) {
			t.Errorf("%s: %s", path, body)
		}
	}
	if s := r.awaitState(t, "shop", Running); s.PID != pid {
		t.Errorf("hers had pid %d and has %d", pid, s.PID)
	}
}
