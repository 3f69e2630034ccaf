package emperor

import (
	"testing"

	"fiefdom/internal/ini"
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
