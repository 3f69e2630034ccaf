package main

import (
	"net/netip"
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
