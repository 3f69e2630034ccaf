package exposure

import (
	"fmt"
	"strconv"
	"strings"
)

// What turns a row, where that depends on more than the level.

func adviseUser(f *Facts) Advice {
	switch {
	case f.Ini.Tyrant:
		return Advice{Note: "give its ini to an owner who is not root"}
	case f.Ini.Leases && f.Ini.UID != "":
		return Advice{Remove: []string{"uid", "gid"}, Note: "it has a uid of its own then"}
	case f.Ini.Given, f.full():
		return Advice{Write: []string{"uid = NAME"}, Note: "a user of its own"}
	}
	a := f.confined()
	a.Note = "it has a uid of its own then"
	if f.Ini.UID != "" {
		a.Remove = append(a.Remove, "uid", "gid")
	}
	return a
}

func adviseOwnUser(f *Facts) Advice {
	switch {
	case f.Ini.Tyrant:
		return Advice{Note: "in tyrant mode vassals of one owner have one uid: give their inis to several"}
	case f.Ini.UID != "" && (f.Ini.Leases || f.full()):
		return Advice{Remove: []string{"uid", "gid"}, Note: "it has a uid of its own then"}
	case f.Ini.UID == "" && !f.Ini.Given && !f.full():
		a := f.confined()
		a.Note = "it has a uid of its own then"
		return a
	}
	return Advice{Write: []string{"uid = NAME"}, Note: "a user of its own"}
}

// adviseStrict keeps the ports on which the app listens: under strict it may have
// no others than those that it names or publishes.
func adviseStrict(f *Facts) Advice {
	a := Advice{
		Remove: f.against(), Write: []string{"confine = strict"},
		Note: "compilers in the app, as in Node, Java and PHP, cannot work then",
	}
	switch {
	case f.Network.Counted:
	case len(f.Network.Listens) > 0:
		a.Write = append(a.Write, f.listenPorts())
	default:
		a.Note += "; without listen-ports it listens on what it publishes alone"
	}
	return a
}

// listenPorts is the line for the ports on which the app listens now.
func (f *Facts) listenPorts() string {
	words := make([]string, 0, len(f.Network.Listens))
	for _, port := range f.Network.Listens {
		words = append(words, strconv.Itoa(int(port)))
	}
	return "listen-ports = " + strings.Join(words, ",")
}

func (f *Facts) against() []string {
	if f.full() {
		return nil
	}
	return f.Ini.Against
}

// adviseCode names lines that give the code away, else whose it should be.
func adviseCode(f *Facts) Advice {
	if !f.full() {
		return f.confined()
	}
	a := Advice{Note: "name the folder with its data alone"}
	for _, c := range f.Files.Code {
		for _, path := range f.Files.Changes {
			if path == c.Path && c.Writable != "" && !strings.Contains(strings.Join(a.Remove, "\n"), c.Writable) {
				a.Remove = append(a.Remove, c.Writable)
			}
		}
	}
	if len(a.Remove) == 0 {
		a = Advice{Note: "give it to root, or to another user than the app's"}
	}
	return a
}

func adviseNetwork(f *Facts) Advice {
	switch {
	case f.Network.Host && len(f.Network.Choices) == 0:
		return Advice{Remove: []string{"network"}, Write: []string{"network = none"}, Note: "or a network of the emperor's"}
	case len(f.Network.Choices) > 0:
		return Advice{Write: []string{"network = " + f.Network.Choices[0]}}
	}
	return Advice{Write: []string{"network = none"}, Note: "or a network of the emperor's"}
}

func adviseIsolate(f *Facts) Advice {
	if !shared("net")(f) {
		return adviseNetwork(f)
	}
	var a Advice
	for i, kind := range f.Network.Kinds {
		switch kind {
		case "router":
			a.Emperor = append(a.Emperor, "tuntap-router-isolate = on")
			a.Note = "after the tuntap-router of " + f.Network.Neighbors[i]
		case "bridge":
			a.Emperor = append(a.Emperor, "bridge-isolate = on")
			a.Note = "after bridge = " + f.Network.Neighbors[i]
		case "rule":
			a.Note = "a rule of its network's chain out allows all: fiefdom firewall list " + f.Network.Neighbors[i]
		default:
			a.Note = "what it may reach is for whoever runs the router of " + f.Network.Neighbors[i] + " to say"
		}
	}
	return a
}

func adviseOutside(f *Facts) Advice {
	switch {
	case !shared("net")(f):
		a := adviseNetwork(f)
		a.Note = "then rules say what it may reach"
		return a
	case !f.Network.Ruled:
		return Advice{Note: "nobody but a router takes tuntap-device-rule: network = NAME of a router"}
	}
	return Advice{Write: []string{"tuntap-device-rule = out any any deny"}, Note: "as the last; before it a line for each that it needs"}
}

func advisePorts(f *Facts) Advice {
	const withPorts = 4
	switch {
	case f.Files.Knows < withPorts:
		return Advice{Note: "this kernel's Landlock knows no ports: Linux 6.7"}
	case len(f.Network.Listens) == 0:
		a := f.confined("listen-ports = PORT")
		a.Note = "those that it is to have; now it listens on none"
		return a
	}
	return f.confined(f.listenPorts())
}

func advisePublished(f *Facts) Advice {
	a := Advice{Note: "behind a reverse proxy of the host's; or publish = … from PREFIX"}
	for _, p := range f.Network.Low {
		a.Remove = append(a.Remove, p.Line)
		a.Write = append(a.Write, p.Closer)
	}
	return a
}

// adviseMemory leaves twice of what it uses: a limit that it meets today is none to advise.
func adviseMemory(f *Facts) Advice {
	megabytes := uint64(512)
	for megabytes<<20 < 2*f.Limits.UsedMemory {
		megabytes *= 2
	}
	return Advice{Write: []string{fmt.Sprintf("limit-memory = %dM", megabytes)}}
}

func advisePIDs(f *Facts) Advice {
	most := 256
	for most < 2*f.Limits.UsedPIDs {
		most *= 2
	}
	return Advice{Write: []string{fmt.Sprintf("limit-pids = %d", most)}}
}
