package main

import (
	"context"
	"runtime"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"fiefdom/emperor"
	"fiefdom/tuntap"
)

// metric is one metric's name, meaning and labels.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	desc       *prometheus.Desc
}

// metrics are all of ours, in the order of docs/monitoring.md.
var metrics []*metric

func newMetric(kind prometheus.ValueType, name, help string, labels ...string) *metric {
	m := &metric{name: name, help: help, kind: kind, labels: labels, desc: prometheus.NewDesc(name, help, labels, nil)}
	metrics = append(metrics, m)
	return m
}

func gauge(name, help string, labels ...string) *metric {
	return newMetric(prometheus.GaugeValue, name, help, labels...)
}

func count(name, help string, labels ...string) *metric {
	return newMetric(prometheus.CounterValue, name, help, labels...)
}

// rx is what a vassal received, tx what it sent, as everywhere.
var (
	vassalState    = gauge("fiefdom_vassal_state", "1 for the state that the vassal is in.", "vassal", "state")
	vassalStarted  = gauge("fiefdom_vassal_start_time_seconds", "Unix time since when the vassal is running; missing while it is not.", "vassal")
	vassalStarts   = count("fiefdom_vassal_starts_total", "Starts that were tried, failed ones too.", "vassal")
	vassalRestarts = count("fiefdom_vassal_restarts_total", "Starts that came to run, but for the first.", "vassal")
	vassalBackoff  = gauge("fiefdom_vassal_backoff_seconds", "How long the back-off is that the vassal waits for; 0: none.", "vassal")
	vassalRx       = count("fiefdom_vassal_receive_bytes_total", "Bytes of IP packets that the vassal received.", "vassal")
	vassalTx       = count("fiefdom_vassal_transmit_bytes_total", "Bytes of IP packets that the vassal sent.", "vassal")
	vassalDrops    = count("fiefdom_vassal_dropped_packets_total", "Packets from and to the vassal that were dropped.", "vassal", "reason")
	vassalMemory   = gauge("fiefdom_vassal_memory_bytes", "Memory that the vassal's processes use.", "vassal")
	vassalCPU      = count("fiefdom_vassal_cpu_seconds_total", "CPU time of the vassal's processes since their start.", "vassal")
	vassalPIDs     = gauge("fiefdom_vassal_pids", "Processes and threads of the vassal.", "vassal")
	vassalLimit    = gauge("fiefdom_vassal_memory_limit_bytes", "What limit-memory allows; missing without.", "vassal")
	vassalThrottle = count("fiefdom_vassal_throttled_seconds_total", "Time that limit-cpu made the vassal wait.", "vassal")
	vassalOOM      = count("fiefdom_vassal_oom_kills_total", "Processes that were killed for lack of memory.", "vassal")
	vassalPorts    = gauge("fiefdom_vassal_published_ports", "Ports of the host that lead to the vassal now; one of both families counts once.", "vassal")
	vassalsByState = gauge("fiefdom_vassals", "Vassals by state.", "state")

	networkPeers = gauge("fiefdom_network_peers", "Peers of the network.", "network")
	networkRxP   = count("fiefdom_network_receive_packets_total", "Packets that the network's peers received.", "network")
	networkTxP   = count("fiefdom_network_transmit_packets_total", "Packets that the network's peers sent.", "network")
	networkRx    = count("fiefdom_network_receive_bytes_total", "Bytes of IP packets that the network's peers received.", "network")
	networkTx    = count("fiefdom_network_transmit_bytes_total", "Bytes of IP packets that the network's peers sent.", "network")
	networkDrops = count("fiefdom_network_dropped_packets_total", "Dropped packets that belong to no peer.", "network", "reason")

	routerUp       = gauge("fiefdom_router_up", "1 if the router answers; missing without networks.")
	routerRestarts = count("fiefdom_router_restarts_total", "Routers that ended and were started again.")

	buildInfo  = gauge("fiefdom_build_info", "Always 1.", "version", "goversion")
	reloads    = count("fiefdom_reloads_total", "Reloads of all inis (SIGHUP).")
	events     = count("fiefdom_events_total", "Events of this emperor; see fiefdom events.", "kind")
	eventsLost = count("fiefdom_events_lost_total", "Events that could not be written to the journal's file.")
)

// collector reads everything when it is asked, and nothing in between.
type collector struct {
	vassals  func(context.Context) []emperor.Status
	networks func(context.Context) ([]tuntap.NetworkStats, error) // nil: there are none
	events   func() (byKind map[string]uint64, lost uint64)
}

// Describe names all metrics.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range metrics {
		to <- m.desc
	}
}

// Collect reads them.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), metricsTime/2)
	defer cancel()
	put := func(m *metric, value float64, labels ...string) {
		// Only wrong numbers of labels are errors here.
		to <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
	}
	var asking sync.WaitGroup // both ask the router, which answers once
	asking.Go(func() { c.collectNetworks(ctx, put) })
	c.collectVassals(ctx, put)
	asking.Wait()
	byKind, lost := c.events()
	for kind := range emperor.Kinds {
		put(events, float64(byKind[kind]), kind)
	}
	put(routerRestarts, float64(byKind[emperor.KindRouter]))
	put(reloads, float64(byKind[emperor.KindReload]))
	put(eventsLost, float64(lost))
	put(buildInfo, 1, versionText(), runtime.Version())
}

func (c *collector) collectVassals(ctx context.Context, put func(*metric, float64, ...string)) {
	all := c.vassals(ctx)
	in := map[emperor.State]int{}
	for _, s := range all {
		in[s.State]++
		name := strings.ToValidUTF8(s.Name, "?")
		put(vassalState, 1, name, string(s.State))
		if s.State == emperor.Running {
			put(vassalStarted, float64(s.Since.UnixMilli())/1000, name)
		}
		put(vassalStarts, float64(s.Starts), name)
		put(vassalRestarts, float64(s.Restarts), name)
		put(vassalBackoff, s.Backoff, name)
		put(vassalRx, float64(s.RxBytes), name)
		put(vassalTx, float64(s.TxBytes), name)
		for reason, n := range s.Drops {
			put(vassalDrops, float64(n), name, reason)
		}
		put(vassalOOM, float64(s.OOMKills), name)
		put(vassalPorts, float64(emperor.PublishedCount(s.Published)), name)
		if s.PIDs > 0 {
			put(vassalMemory, float64(s.MemoryBytes), name)
			put(vassalCPU, s.CPUSeconds, name)
			put(vassalThrottle, s.ThrottledSeconds, name)
			put(vassalPIDs, float64(s.PIDs), name)
		}
		if s.Limits != nil && s.Limits.MemoryBytes > 0 {
			put(vassalLimit, float64(s.Limits.MemoryBytes), name)
		}
	}
	for _, state := range emperor.States {
		put(vassalsByState, float64(in[state]), string(state))
	}
}

func (c *collector) collectNetworks(ctx context.Context, put func(*metric, float64, ...string)) {
	if c.networks == nil {
		return
	}
	all, err := c.networks(ctx)
	if err != nil {
		put(routerUp, 0)
		return
	}
	put(routerUp, 1)
	for _, n := range all {
		put(networkPeers, float64(len(n.Peers)), n.Name)
		put(networkRxP, float64(n.Totals.RxPackets), n.Name)
		put(networkTxP, float64(n.Totals.TxPackets), n.Name)
		put(networkRx, float64(n.Totals.RxBytes), n.Name)
		put(networkTx, float64(n.Totals.TxBytes), n.Name)
		for reason, dropped := range n.Drops {
			put(networkDrops, float64(dropped), n.Name, reason.String())
		}
	}
}
