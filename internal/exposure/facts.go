package exposure

// Facts are what is true of one vassal's app. The zero value is an app of which
// nothing is taken away. The schema is stable: fields are only added.
type Facts struct {
	Vassal  string `json:"vassal"`
	File    string `json:"file"`  // its ini
	Level   string `json:"level"` // of confine
	Running bool   `json:"running"`
	PID     int    `json:"pid,omitempty"` // of whom was looked at; 0: this is what its ini asks for

	Ini     Ini     `json:"ini"`
	Rights  Rights  `json:"rights"`
	Files   Files   `json:"files"`
	Sight   Sight   `json:"sight"`
	Network Network `json:"network"`
	Limits  Limits  `json:"limits"`

	Lacks []string `json:"lacks,omitempty"` // what this kernel has not
}

// Ini is what its files say, and what they could say instead.
type Ini struct {
	UID      string   `json:"uid,omitempty"`     // the option uid or gid of its own ini: "uid = root"; empty: none
	Given    bool     `json:"given,omitempty"`   // the emperor's ini names a uid for it
	Leases   bool     `json:"leases,omitempty"`  // without a uid it has one of its own
	Tyrant   bool     `json:"tyrant,omitempty"`  // its uid is its owner's
	Cap      bool     `json:"cap,omitempty"`     // the option cap
	Against  []string `json:"against,omitempty"` // options that confine = default does not stand beside
	Hooks    []string `json:"hooks,omitempty"`   // lines that run with root's rights at each start
	Secrets  []string `json:"secrets,omitempty"` // what looks like a password or a key, by name
	Readable bool     `json:"readable,omitempty"`
}

// Rights are the app's own, as the kernel has them.
type Rights struct {
	UID          int      `json:"uid"`          // that it runs under
	Root         bool     `json:"root"`         // it is root, or of root's group
	Sharing      int      `json:"sharing"`      // other vassals with its uid
	Capabilities []string `json:"capabilities"` // in any of its sets that count
	NoNewPrivs   bool     `json:"no_new_privs"`
	Filtered     bool     `json:"filtered"` // its system calls are
	Strict       bool     `json:"strict"`   // by the list of strict
}

// Files are what it may do to files.
type Files struct {
	Landlock   int      `json:"landlock"`             // version of the rules that hold; 0: none
	Knows      int      `json:"kernel_landlock"`      // what this kernel has
	Open       []string `json:"open,omitempty"`       // mounts that it may write, beside private ones and those that its ini names
	Setuid     []string `json:"setuid,omitempty"`     // mounts on which programs have rights of their own
	Executable []string `json:"executable,omitempty"` // mounts that it may write, and execute from
	Given      []string `json:"given,omitempty"`      // lines of its ini by which it gets what is the host's own
	Code       []Code   `json:"code,omitempty"`       // what it executes, on mounts that it may write
	Changes    []string `json:"changes,omitempty"`    // those of Code that its user may change
}

// Code is a file that the app executes.
type Code struct {
	Path     string `json:"path"`
	Writable string `json:"writable,omitempty"` // the line of the ini by which it lies open; empty: nothing keeps it
}

// Sight is what of the host it can see.
type Sight struct {
	Shared []string `json:"shared,omitempty"` // namespaces that are the host's: pid mnt ipc uts cgroup net
	Tmp    bool     `json:"tmp"`              // its /tmp is the host's
	Run    bool     `json:"run"`              // the same of /run, with the host's sockets
	Dev    bool     `json:"dev"`
	Kernel bool     `json:"kernel"` // /proc and /sys with what is the machine's
}

// Network is whom it can reach, and who it.
type Network struct {
	Host      bool     `json:"host"`                // network = host
	Choices   []string `json:"choices,omitempty"`   // networks that it could be in
	Neighbors []string `json:"neighbors,omitempty"` // networks in which other vassals, the host and private networks are open to it
	Kinds     []string `json:"kinds,omitempty"`     // of each of Neighbors: router, bridge, foreign, or rule: of its network's
	Anywhere  []string `json:"anywhere,omitempty"`  // networks out of which it may begin what it likes
	Ruled     bool     `json:"ruled"`               // all of Anywhere take tuntap-device-rule
	Counted   bool     `json:"counted"`             // it may listen on certain TCP ports alone
	Listens   []uint16 `json:"listens,omitempty"`   // TCP ports on which it does
	Low       []Port   `json:"low,omitempty"`       // of the host's below 1024 that are published to everybody
}

// Port is a published port, as lines of an ini.
type Port struct {
	Line   string `json:"line"`
	Closer string `json:"closer"` // the same at the host's loopback
}

// Limits are whether there are any, and what is used now.
type Limits struct {
	Memory bool `json:"memory"`
	PIDs   bool `json:"pids"`
	CPU    bool `json:"cpu"`

	UsedMemory uint64 `json:"used_memory_bytes,omitempty"`
	UsedPIDs   int    `json:"used_pids,omitempty"`
}
