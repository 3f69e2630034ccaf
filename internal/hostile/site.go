package hostile

// Site is what an attacker knows of the place that he is in, as a leaked page of
// the operator's notes would tell him. What is empty is not tried, or tried by
// the usual names.
type Site struct {
	Runtime string   `json:"runtime,omitempty"` // the emperor's runtime directory
	Sockets []string `json:"sockets,omitempty"` // of the routers, of the stats, of others on the host
	Program string   `json:"program,omitempty"` // the emperor's binary
	Folders []string `json:"folders,omitempty"` // with the state, the inis, with secrets
	Planted []string `json:"planted,omitempty"` // files that everybody on the host can read, in places that should be private
	Apps    []string `json:"apps,omitempty"`    // files and sockets of other apps, of which modes alone keep nobody away
	Keys    []string `json:"keys,omitempty"`    // descriptions of the emperor's keys
	Memory  *int     `json:"memory,omitempty"`  // the id of a shared memory of the host's that everybody may attach

	Setuid  string `json:"setuid,omitempty"`  // this program once more, root's, with the setuid bit
	Capable string `json:"capable,omitempty"` // this program once more, with file capabilities

	Abstract []string `json:"abstract,omitempty"` // names of abstract sockets of the host's
	Loopback []string `json:"loopback,omitempty"` // address and port of what listens on the host's loopback
	Host     []string `json:"host,omitempty"`     // the same for the host's other addresses
	Others   []string `json:"others,omitempty"`   // the same for other vassals
	LAN      []string `json:"lan,omitempty"`      // the same for the networks around the host: private ones, metadata
	Foreign  string   `json:"foreign,omitempty"`  // an address that is another vassal's
	Gateway  string   `json:"gateway,omitempty"`  // the router's address

	top int // the pid of the program that runs the rows
}

// fill puts the usual names where nothing is known.
func (s *Site) fill() {
	if s.Runtime == "" {
		s.Runtime = "/run/fiefdom/emperor"
	}
	if s.Program == "" {
		s.Program = "/usr/bin/fiefdom"
	}
	if s.Loopback == nil {
		s.Loopback = []string{"127.0.0.1:22", "127.0.0.1:25", "127.0.0.1:53", "127.0.0.1:631", "[::1]:22"}
	}
	if s.LAN == nil {
		s.LAN = []string{"169.254.169.254:80", "192.168.0.1:80", "10.0.0.1:80", "172.17.0.1:80"}
	}
	if s.Foreign == "" {
		s.Foreign = "192.0.2.77"
	}
	if s.Gateway == "" {
		s.Gateway = "192.0.2.1"
	}
}
