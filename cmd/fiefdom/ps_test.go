package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fiefdom/emperor"
)

func TestTable(t *testing.T) {
	blog := emperor.Status{
		Name: "blog", State: emperor.Running, PID: 94, UID: 62390, Addresses: []netip.Addr{netip.MustParseAddr("10.9.171.241")},
		Restarts: 1, Since: time.Now(), RxBytes: 75 << 20, TxBytes: 861 << 10, Drops: map[string]uint64{"isolate": 1, "spoofed": 2},
	}
	shop := emperor.Status{Name: "shop", State: emperor.Invalid, UID: -1, Since: time.Now(), File: "/etc/vassals/shop.ini", Error: "/etc/vassals/shop.ini:3: no\nmore"}
	port := func(host, to string, port, last uint16, proto string) emperor.PublishedStatus {
		return emperor.PublishedStatus{Address: netip.MustParseAddr(host), Port: port, Last: last, Proto: proto, To: netip.MustParseAddrPort(to)}
	}
	open, busy := blog, blog
	open.Published = []emperor.PublishedStatus{port("0.0.0.0", "10.9.0.7:80", 8080, 8080, "tcp"), port("::", "[fd09::7]:80", 8080, 8080, "tcp")}
	busy.Name, busy.Published = "busy", append(slices.Clone(open.Published),
		port("127.0.0.1", "10.9.0.7:53", 53, 53, "udp"), port("::1", "[fd09::7]:9000", 8000, 8009, "tcp"), port("0.0.0.0", "10.9.0.7:1", 1, 1, "tcp"))
	for _, c := range []struct {
		name string
		all  []emperor.Status
		want string
	}{
		{
			"all well", []emperor.Status{blog}, `
NAME  STATE    SINCE  PID  UID    ADDRESS       RESTARTS  RX   TX    DROPS
blog  running  0s     94   62390  10.9.171.241  1         75M  861K  3
`,
		},
		{
			"an error", []emperor.Status{blog, shop}, `
NAME  STATE    SINCE  PID  UID    ADDRESS       RESTARTS  RX   TX    DROPS  ERROR
blog  running  0s     94   62390  10.9.171.241  1         75M  861K  3
shop  invalid  0s     -    -      -             0         0B   0B    0      shop.ini:3: no…
`,
		},
		{
			"published", []emperor.Status{open, busy, shop}, `
NAME  STATE    SINCE  PID  UID    ADDRESS       PORTS                                                  RESTARTS  RX   TX    DROPS  ERROR
blog  running  0s     94   62390  10.9.171.241  8080:80                                                1         75M  861K  3
busy  running  0s     94   62390  10.9.171.241  8080:80,127.0.0.1:53/udp,[::1]:8000-8009:9000-9009,+1  1         75M  861K  3
shop  invalid  0s     -    -      -             -                                                      0         0B   0B    0      shop.ini:3: no…
`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := table(&b, c.all); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for line := range strings.Lines(b.String()) {
				got.WriteString(strings.TrimRight(line, " \n") + "\n")
			}
			if got.String() != c.want[1:] {
				t.Errorf("got\n%swant\n%s", got.String(), c.want[1:])
			}
		})
	}
}
