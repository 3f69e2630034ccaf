package main

import (
	"fmt"
	"strings"
	"testing"
)

// column is from where somebody asks.
type column int

const (
	fromMachine   column = iota // another machine, by the host's default route
	fromNeighbour               // another machine, behind a second device of the host's
	fromHost
	fromSame   // another vassal of the network
	fromOther  // a vassal of another network
	fromLetIn  // one that a rule of its network lets in
	fromOpen   // one of a network with isolate = off
	fromBridge // a vassal in one of the kernel's bridges
	fromItself
	columns
)

var columnNames = [columns]string{
	"another machine", "its neighbour", "the host", "same network", "other network", "let in by a rule", "network not isolated", "the kernel's bridge", "itself",
}

// What comes of asking.
const (
	own     = "own"     // answered, and the app sees who asks
	masked  = "masked"  // answered, and the app sees the router
	refused = "refused" // told at once
	silent  = "silent"  // no answer
	noCase  = "-"
)

// spot is where somebody asks: an address of the host's or of the vassal's.
type spot string

const (
	atHost     spot = "the host"
	atHost2    spot = "the host's second device"
	atLoopback spot = "the host's loopback"
	atRouter   spot = "the router"
	atApp      spot = "the app itself"
)

// reachGroup is what one vassal publishes by some lines, and who reaches that.
type reachGroup struct {
	of      string
	publish []string // each for TCP and for UDP
	rows    []reachRow
}

// reachRow is what is expected at one port, in the order of the columns: by TCP
// and UDP and for IPv4 and IPv6, unless it says which.
type reachRow struct {
	at     spot
	port   uint16
	proto  string
	family int
	want   string
}

// reachGroups is the table. Its columns:
// machine, neighbour, host, same, other, let in, not isolated, bridge, itself.
var reachGroups = []reachGroup{
	{of: "blog", publish: []string{"8080:8000"}, rows: []reachRow{
		{at: atHost, port: 8080, want: "own own own masked own own own own masked"},
		{at: atHost2, port: 8080, want: "own own own masked own own own own masked"},
		{at: atRouter, port: 8080, want: "own own own masked own own own silent masked"},
		{at: atLoopback, port: 8080, want: "- - masked - - - - - -"},
	}},
	{of: "blog", publish: []string{"198.51.100.1:8081:8000", "[2001:db8:198::1]:8081:8000"}, rows: []reachRow{
		{at: atHost, port: 8081, want: "own own own masked own own own own masked"},
		{at: atHost2, port: 8081, want: "refused refused refused silent silent silent refused silent silent"},
		{at: atLoopback, port: 8081, want: "- - refused - - - - - -"},
	}},
	{of: "blog", publish: []string{"127.0.0.1:8082:8000", "[::1]:8082:8000"}, rows: []reachRow{
		{at: atLoopback, port: 8082, want: "- - masked - - - - - -"},
		{at: atHost, port: 8082, want: "refused refused refused silent silent silent refused silent silent"},
		{at: atRouter, port: 8082, want: "refused refused refused silent silent refused silent silent silent"},
	}},
	{of: "blog", publish: []string{"9000-9002:7998-8000"}, rows: []reachRow{
		{at: atHost, port: 9002, want: "own own own masked own own own own masked"},
		{at: atHost, port: 9001, want: "refused refused refused refused refused refused refused refused refused"}, // by the app
	}},
	{of: "blog", publish: []string{"8083:8000 from 203.0.113.0/24,2001:db8:203::/64"}, rows: []reachRow{
		{at: atHost, port: 8083, proto: "tcp", want: "refused own refused refused refused refused refused silent refused"},
		{at: atHost, port: 8083, proto: "udp", want: "silent own silent silent silent silent silent silent silent"},
	}},
	{of: "blog", publish: []string{"0.0.0.0:8084:8000"}, rows: []reachRow{
		{at: atHost, port: 8084, family: 4, want: "own own own masked own own own own masked"},
		{at: atHost, port: 8084, family: 6, want: "refused refused refused silent silent silent refused silent silent"},
	}},
	{of: "blog", publish: []string{"[::]:8085:8000"}, rows: []reachRow{
		{at: atHost, port: 8085, family: 6, want: "own own own masked own own own own masked"},
		{at: atHost, port: 8085, family: 4, want: "refused refused refused silent silent silent refused silent silent"},
	}},
	{of: "blog", rows: []reachRow{
		{at: atApp, port: 8000, want: "silent silent own silent silent own silent silent own"},
	}},

	{of: "shop", publish: []string{"8180:8000"}, rows: []reachRow{
		{at: atHost, port: 8180, want: "own own own masked own - - own masked"},
		{at: atRouter, port: 8180, want: "own own own masked own - - silent masked"},
		{at: atLoopback, port: 8180, want: "- - masked - - - - - -"},
	}},
	{of: "shop", rows: []reachRow{
		{at: atApp, port: 8000, want: "silent silent own own silent - - silent own"},
	}},

	{of: "wiki", publish: []string{"8280:8000"}, rows: []reachRow{
		{at: atHost, port: 8280, want: "own own own masked own - own own masked"},
		{at: atHost2, port: 8280, want: "own own own masked own - own own masked"},
		{at: atRouter, port: 8280, want: "own own own masked own - own own masked"},
		{at: atLoopback, port: 8280, want: "- - masked - - - - - -"},
	}},
	{of: "wiki", publish: []string{"127.0.0.1:8282:8000", "[::1]:8282:8000"}, rows: []reachRow{
		{at: atLoopback, port: 8282, want: "- - masked - - - - - -"},
		{at: atHost, port: 8282, want: "refused refused refused silent silent - refused refused silent"},
	}},
	{of: "wiki", rows: []reachRow{
		{at: atApp, port: 8000, want: "silent silent own silent silent - silent silent own"},
	}},

	{of: "over", rows: []reachRow{
		{at: atApp, port: 8000, want: "silent silent own own silent - silent silent own"},
	}},
	{of: "proxy", rows: []reachRow{
		{at: atHost, port: 8800, proto: "tcp", want: "own own own - silent - own silent own"},
		{at: atHost, port: 8800, proto: "udp", want: "own - own - silent - - silent own"}, // it answers from whichever address is nearer
		{at: atLoopback, port: 8800, want: "- - own - - - - - own"},
	}},
}

// protos are those of a row.
func (r *reachRow) protos() []string {
	if r.proto != "" {
		return []string{r.proto}
	}
	return []string{"tcp", "udp"}
}

// families are 0 for IPv4 and 1 for IPv6.
func (r *reachRow) families() []int {
	switch r.family {
	case 4:
		return []int{0}
	case 6:
		return []int{1}
	}
	return []int{0, 1}
}

// reachWords are what the page says for an outcome.
var reachWords = map[string]string{
	own: "yes", masked: "as the router", refused: "refused", silent: "no", noCase: "–", known: "yes", unknown: "no such name",
}

// TestReachPage compares the page with the table that is tested.
func TestReachPage(t *testing.T) {
	tables := map[string]string{"names": namesTable()}
	for _, g := range reachGroups {
		tables[g.of] = reachTable(g.of)
	}
	comparePage(t, "../../docs/publishing.md", tables)
}

func reachHead(first, second string) string {
	return "| " + first + " | " + second + " | " + strings.Join(columnNames[:], " | ") + " |\n|---|---|" + strings.Repeat("---|", int(columns)) + "\n"
}

func reachCells(want string) (s string) {
	for w := range strings.FieldsSeq(want) {
		s += " | " + reachWords[w]
	}
	return s + " |\n"
}

// reachTable is the page's table of one vassal.
func reachTable(of string) string {
	s := reachHead("`publish =`", "asked at")
	for _, g := range reachGroups {
		if g.of != of {
			continue
		}
		what := "nothing"
		if len(g.publish) > 0 {
			what = "`" + strings.Join(g.publish, "`, `") + "`"
		}
		for _, row := range g.rows {
			at := fmt.Sprintf("%s, %d", row.at, row.port)
			if row.family != 0 {
				at += fmt.Sprintf(", IPv%d", row.family)
			}
			if row.proto != "" {
				at += ", " + strings.ToUpper(row.proto)
			}
			s += "| " + what + " | " + at + reachCells(row.want)
			what = ""
		}
	}
	return s
}

func namesTable() string {
	s := reachHead("name", "asked at")
	for _, row := range nameRows {
		name := row.name
		if name == reverse {
			name = "the address of " + row.of
		} else {
			name = "`" + name + "`"
		}
		at := "the host"
		if row.at == atRouter {
			at = "one's router"
		}
		s += "| " + name + " | " + at + reachCells(row.want)
	}
	return s
}
