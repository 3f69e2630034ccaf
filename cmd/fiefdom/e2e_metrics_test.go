package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

// scrape is what the metrics' socket tells, by metric and labels as they are written.
func (r *realm) scrape(address string) (text string, values map[string]string, err error) {
	client := clientIn(r.Host)
	url := "http://" + address + "/metrics"
	if strings.HasPrefix(address, "/") {
		url = "http://metrics/metrics"
		client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", r.Path(address))
		}}
	}
	resp, err := client.Get(url)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("%s, %w: %s", resp.Status, err, body)
	}
	values = map[string]string{}
	for line := range strings.Lines(string(body)) {
		if i := strings.LastIndexByte(line, ' '); !strings.HasPrefix(line, "#") && i > 0 {
			values[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return string(body), values, nil
}

// What Prometheus reads is what ps says, in words that its own judge accepts.
func TestMetrics(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork+"metrics = /run/t/metrics.sock\n", map[string]string{
		"blog": agentIni,
		"sick": "[uwsgi]\ncommand = /bin/sh -c 'exit 3'\n",
		"typo": "[uwsgi]\ncommand = AGENT\nuid = nobody at all\n",
	})
	s := r.reach("blog")
	_, _ = r.sh(s, "ping -c 1 -W 1 10.9.200.1") // nobody's: dropped by isolation
	sick := r.await("sick", "waits", func(s emperor.Status) bool { return s.State == emperor.Backoff && s.Backoff > 1 })
	r.awaitState("typo", emperor.Invalid)
	var text string
	var values map[string]string
	nettest.Eventually(t, patience, "metrics as they should be", func() bool {
		var err error
		if text, values, err = r.scrape("/run/t/metrics.sock"); err != nil {
			t.Fatal(err)
		}
		return values[`fiefdom_vassal_dropped_packets_total{reason="isolate",vassal="blog"}`] == "1"
	})
	for key, want := range map[string]string{
		`fiefdom_vassal_state{state="running",vassal="blog"}`:    "1",
		`fiefdom_vassal_state{state="invalid",vassal="typo"}`:    "1",
		`fiefdom_vassal_restarts_total{vassal="blog"}`:           "0",
		`fiefdom_vassal_starts_total{vassal="blog"}`:             "1",
		`fiefdom_vassal_starts_total{vassal="typo"}`:             "0",
		`fiefdom_vassals{state="invalid"}`:                       "1",
		`fiefdom_vassals{state="sleeping"}`:                      "0",
		`fiefdom_network_peers{network="fief0"}`:                 "2", // a jail outlives its app
		`fiefdom_router_up`:                                      "1",
		`fiefdom_router_restarts_total`:                          "0",
		`fiefdom_events_lost_total`:                              "0",
		`fiefdom_events_total{kind="invalid"}`:                   "1",
		`fiefdom_vassal_start_time_seconds{vassal="typo"}`:       "",
		`fiefdom_vassal_backoff_seconds{vassal="blog"}`:          "0",
		`promhttp_metric_handler_errors_total{cause="encoding"}`: "",
	} {
		if got := values[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if n := values[`fiefdom_vassal_starts_total{vassal="sick"}`]; n == "" || n == "0" || sick.Starts < 2 {
		t.Errorf("sick was started %q times, %d by ps", n, sick.Starts)
	}
	for _, key := range []string{
		`fiefdom_network_transmit_packets_total{network="fief0"}`, `fiefdom_vassal_transmit_bytes_total{vassal="blog"}`,
		`fiefdom_vassal_start_time_seconds{vassal="blog"}`, `fiefdom_vassal_memory_bytes{vassal="blog"}`, `fiefdom_vassal_pids{vassal="blog"}`, "go_goroutines", "process_open_fds",
	} {
		if n := values[key]; n == "" || n == "0" {
			t.Errorf("%s is %q", key, n)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promtool's judge: %v, %v", problems, err)
	}
	// What a network counted stays when its peers go; it is a counter.
	before := values[`fiefdom_network_transmit_bytes_total{network="fief0"}`]
	r.remove("blog")
	r.await("blog", "is gone", func(s emperor.Status) bool { return s.Name == "" })
	nettest.Eventually(t, patience, "the peer to be gone", func() bool {
		_, values, err = r.scrape("/run/t/metrics.sock")
		return err == nil && values[`fiefdom_network_peers{network="fief0"}`] == "1"
	})
	if after := values[`fiefdom_network_transmit_bytes_total{network="fief0"}`]; len(after) < len(before) || len(after) == len(before) && after < before {
		t.Errorf("the network's bytes went from %s to %s", before, after)
	}
	r.killRouter()
	r.awaitEvent(emperor.KindRouter)
	if _, values, err = r.scrape("/run/t/metrics.sock"); err != nil || values["fiefdom_router_restarts_total"] != "1" {
		t.Errorf("router restarts: %q, %v", values["fiefdom_router_restarts_total"], err)
	}
	if mode := r.Run(t, "stat", "-c", "%a", "/run/t/metrics.sock"); strings.TrimSpace(mode) != "600" {
		t.Errorf("the socket's mode is %s", mode)
	}
	r.stop(syscall.SIGTERM)
}

// By TCP, and without any network.
func TestMetricsByTCP(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "[uwsgi]\nemperor = /run/t/vassals\nmetrics = 127.0.0.1:9200\nexec-as-root = ip link set lo up\n")
	r.start()
	_, values, err := r.scrape("127.0.0.1:9200")
	if _, up := values["fiefdom_router_up"]; err != nil || up || values[`fiefdom_vassals{state="running"}`] != "0" {
		t.Errorf("%v, router %v: %v", err, up, values)
	}
	r.stop(syscall.SIGTERM)
}

// thousand is a collector of as many vassals, each with drops of three reasons.
func thousand() *collector {
	c := &collector{events: func() (map[string]uint64, uint64) { return nil, 0 }}
	var all []emperor.Status
	network := tuntap.NetworkStats{Name: "fief0"}
	for i := range 1000 {
		name := fmt.Sprintf("vassal%04d", i)
		all = append(all, emperor.Status{
			Name: name, State: emperor.Running, Since: time.Now(), RxBytes: 1 << 40, TxBytes: 12345,
			Drops: map[string]uint64{"isolate": 5, "rule": 7, "spoofed": 1}, MemoryBytes: 1 << 30, CPUSeconds: 3600, PIDs: 12,
			Limits: &emperor.LimitStatus{MemoryBytes: 1 << 31},
		})
		network.Peers = append(network.Peers, tuntap.PeerStats{Vassal: name})
	}
	c.vassals = func(context.Context) []emperor.Status { return all }
	c.networks = func(context.Context) ([]tuntap.NetworkStats, error) { return []tuntap.NetworkStats{network}, nil }
	return c
}

// Names that others chose, in bytes that are no text, break no scrape.
func TestMetricsOfStrangeNames(t *testing.T) {
	c := thousand()
	c.vassals = func(context.Context) []emperor.Status {
		return []emperor.Status{{Name: "a\xff\x1b\"\n", State: emperor.Running}}
	}
	all := prometheus.NewPedanticRegistry()
	all.MustRegister(c)
	if got, err := all.Gather(); err != nil || len(got) < 10 {
		t.Errorf("%d metrics, %v", len(got), err)
	}
}

// BenchmarkScrape is one scrape of 1,000 vassals by HTTP.
func BenchmarkScrape(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- serveMetrics(ctx, l, thousand(), newLog(io.Discard, "text")) }()
	defer func() { stop(); <-done }()
	for b.Loop() {
		resp, err := http.Get("http://" + l.Addr().String() + "/metrics")
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || n < 100000 {
			b.Fatalf("%d bytes, %v", n, err)
		}
		b.ReportMetric(float64(n), "bytes")
	}
}
