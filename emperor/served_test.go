package emperor

import (
	"strings"
	"testing"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

func TestMetricsOption(t *testing.T) {
	for text, fine := range map[string]bool{
		"/run/metrics.sock": true, "127.0.0.1:9200": true, "[::1]:9200": true,
		":9200": false, "9200": false, "metrics.sock": false, "localhost:9200": false, "127.0.0.1": false, "127.0.0.1:0": false, "": false,
	} {
		var c Config
		if err := setMetrics(&c, ini.Pair{Key: "metrics", Value: text}); (err == nil) != fine || fine && c.Metrics != text {
			t.Errorf("%q: %v, %q", text, err, c.Metrics)
		}
	}
}

// The page leaves the machine only by hands that encrypt.
func TestWebOption(t *testing.T) {
	for text, want := range map[string]string{
		"/run/web.sock": "", "127.0.0.1:9280": "", "127.8.0.1:9280": "", "[::1]:9280": "", "[::ffff:127.0.0.1]:9280": "",
		"0.0.0.0:9280":        "0.0.0.0 is not loopback, and the page is not encrypted; write 127.0.0.1:9280 and reach it by ssh -L 9280:127.0.0.1:9280",
		"[::]:9280":           "is not loopback",
		"198.51.100.1:80":     "is not loopback",
		"[::ffff:8.8.8.8]:80": "is not loopback",
		":9280":               "want an absolute path", "9280": "want an absolute path", "localhost:9280": "want an absolute path",
		"127.0.0.1:0": "want an absolute path", "web.sock": "want an absolute path", "": "want an absolute path",
	} {
		var c Config
		err := setWeb(&c, ini.Pair{Key: "emperor-web", Value: text})
		switch {
		case want == "" && (err != nil || c.Web.Address != text):
			t.Errorf("%q: %v, %q", text, err, c.Web.Address)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || c.Web.Address != ""):
			t.Errorf("%q: %v, %q; want %q", text, err, c.Web.Address, want)
		}
	}
}

// Who limits a page by a mode that it has not shall know.
func TestWebRightsWithoutSocket(t *testing.T) {
	mode := uint32(0o660)
	for address, fine := range map[string]bool{"/run/web.sock": true, "127.0.0.1:9280": false, "": false} {
		w := Web{Address: address, Rights: vassal.SocketRights{Mode: &mode}}
		if err := w.check(); (err == nil) != fine {
			t.Errorf("%q: %v", address, err)
		}
	}
	if err := (&Web{Address: "127.0.0.1:9280"}).check(); err != nil {
		t.Error(err)
	}
}
