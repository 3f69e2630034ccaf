package tuntap

import (
	"net/netip"
	"os"

	"fiefdom/firewall"
)

// NetworkConfig is what the router is told about one network. Plain data: it
// crosses the control connection as JSON.
type NetworkConfig struct {
	Name      string                `json:"name"`                // of the router's device
	Pool      []netip.Prefix        `json:"pool,omitempty"`      // what vassals get their addresses from; empty: not known
	Own       []netip.Addr          `json:"own,omitempty"`       // the router device's own addresses
	Host      []netip.Addr          `json:"host,omitempty"`      // every address of the host: never given, denied by isolate
	NamesAt   uint16                `json:"names_at,omitempty"`  // the port of the own addresses where names are answered, which vassals reach by 53 too; 0: nowhere
	Resolvers []netip.Addr          `json:"resolvers,omitempty"` // isolate lets port 53 of these pass
	Isolate   bool                  `json:"isolate,omitempty"`   // end of the out chain; DESIGN: tuntap-router-isolate
	Strangers []netip.Prefix        `json:"strangers,omitempty"` // other networks' pools: only a rule that allows lets a vassal begin anything there, isolated or not
	Published []Port                `json:"published,omitempty"` // isolate lets these of the host's and the router's addresses pass
	Direct    bool                  `json:"direct,omitempty"`    // switch vassal to vassal here, not in the host's kernel
	In        []firewall.Rule       `json:"in,omitempty"`        // chain in, towards the vassals
	Out       []firewall.Rule       `json:"out,omitempty"`       // chain out, from the vassals
	Reserved  map[netip.Addr]string `json:"reserved,omitempty"`  // declared or leased address to its vassal's name
	Routes    []Route               `json:"routes,omitempty"`    // out by the gateway
	FarEnds   []netip.AddrPort      `json:"far_ends,omitempty"`  // other routers' gateways, besides the routes' targets

	Credentials bool `json:"credentials,omitempty"` // foreign devices must begin with them

	File string `json:"file,omitempty"` // where the network is written, for Explain
	Line int    `json:"line,omitempty"`
}

// Descriptors are what the router is given for one network. It owns them from
// then on: AddNetwork closes them in every case.
type Descriptors struct {
	Device   *os.File // the host's tun device, attached
	Listener *os.File // the listening unix stream socket; may be nil
	Gateway  *os.File // the UDP socket towards other routers; may be nil
}

// Events tells what happened. The functions are called on the router's threads,
// perhaps several at once: they must not block and must not call the Router's
// methods, Identified aside. A nil function is not called.
type Events struct {
	// Registered: addr belongs to the peer from now on. vassal is empty for a foreign peer.
	Registered func(network, vassal string, addr netip.Addr)
	// Refused: a peer did not get addr. holder is the vassal that has or declares it, if known.
	// It is called at most once a second for each peer.
	Refused func(network, vassal string, addr netip.Addr, reason Reason, holder string)
	// Spoofed: a peer sends from src, which is not its own. It is called as often as the log tells of it.
	Spoofed func(network, vassal string, src netip.Addr)
	// Identify asks whose connection conn is; answer with Router.Identified. The peer's packets
	// wait until then. The receiver closes pidfd. Nil: every such peer is foreign.
	Identify func(conn uint64, pidfd *os.File)
	// Closed: the peer is gone and its addresses are free.
	Closed func(network, vassal string, why error)
}
