package emperor

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What an ini has by http:// and resolve comes to its vassal, as with uWSGI. A
// server that says nothing costs that ini alone.
func TestExpanderAsksTheNetwork(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/value":
			w.Write([]byte("from a server\n"))
		case "/more.ini":
			w.Write([]byte("[uwsgi]\nenv = B=%(where)\n"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	got := expandOwned(t, 61200, map[string]string{
		"good":   "resolve = where=127.0.0.1\ncommand = /bin/app\nenv = A=@(" + server.URL + "/value)\ninclude = " + server.URL + "/more.ini",
		"gone":   "command = /bin/app\nenv = A=@(" + server.URL + "/nothing)",
		"silent": "command = /bin/app\nenv = A=@(http://" + silent.Addr().String() + "/)",
	})
	if x := got["good"]; x.Config == nil || len(x.Errors) > 0 || strings.Join(x.Config.Env, ",") != "A=from a server,B=127.0.0.1" {
		t.Errorf("good: %+v", x)
	}
	if x := got["gone"]; !x.Errors.Failed() || x.Errors[0].Pos.Line != 3 || !strings.Contains(x.Errors[0].Message, "404") {
		t.Errorf("gone: %+v", x)
	}
	if x := got["silent"]; !x.Errors.Failed() {
		t.Errorf("silent: %+v", x)
	}
}
