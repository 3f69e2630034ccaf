package emperor

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"fiefdom/internal/exposure"
	"fiefdom/vassal"
)

// exposeIni says what an ini asks for, and what it could ask for instead.
func (e *Emperor) exposeIni(f *exposure.Facts, c *vassal.Config, r *resolved) {
	i := &f.Ini
	i.Tyrant = e.Config.Tyrant
	i.Leases = r.plan.CleanEnv && !e.Config.Tyrant || r.level.Full()
	for option, id := range map[string]*vassal.Identity{"uid": c.UID, "gid": c.GID} {
		switch {
		case id == nil || e.Config.Tyrant:
		case id.Pos.File == c.File:
			i.UID = option + " = " + id.Name
		case option == "uid":
			i.Given = true
		}
	}
	i.Cap = len(c.Cap) > 0
	for option, used := range map[string]bool{"setns": c.Isolation.Setns != "", "pivot_root": c.Isolation.PivotRoot != ""} {
		if used {
			i.Against = append(i.Against, option)
		}
	}
	slices.Sort(i.Against)
	for _, h := range c.Hooks {
		if h.Phase != vassal.AsUser && !e.Config.Tyrant {
			i.Hooks = append(i.Hooks, hookLine(h))
		}
	}
	i.Secrets = secretNames(c)
	for _, w := range c.Confine.Writable {
		if delicate(w.Path, true) && !c.Isolation.Rootfs {
			f.Files.Given = append(f.Files.Given, "writable = "+w.Path)
		}
	}
	for _, b := range c.Confine.Binds {
		if delicate(b.Source, !b.ReadOnly) {
			f.Files.Given = append(f.Files.Given, bindLine(b))
		}
	}
}

// lowPublished are those of what is published that everybody on the way to the host may
// use, below the ports that any program may have.
func lowPublished(all []PublishedStatus) (low []exposure.Port) {
	for _, p := range all {
		if p.Port >= lowPort || len(p.From) > 0 || !p.Address.IsUnspecified() {
			continue
		}
		closer := p
		if closer.Address = netip.AddrFrom4([4]byte{127, 0, 0, 1}); !p.To.Addr().Is4() {
			closer.Address = netip.IPv6Loopback()
		}
		one := exposure.Port{Line: "publish = " + p.text(), Closer: "publish = " + closer.text()}
		if !slices.ContainsFunc(low, func(other exposure.Port) bool { return other.Line == one.Line }) {
			low = append(low, one)
		}
	}
	return low
}

// hookLine is the option of a hook and where it is. What it does may be long, or hidden.
func hookLine(h vassal.Hook) string {
	kinds := []string{"hook", "mount", "umount", "exec"} // by rank
	return fmt.Sprintf("%s-%s (%s:%d)", kinds[min(h.Rank, len(kinds)-1)], h.Phase, filepath.Base(h.Pos.File), h.Pos.Line)
}

func bindLine(b vassal.Bind) string {
	line := "bind = " + b.Source
	if b.Target != b.Source {
		line += ":" + b.Target
	}
	if b.ReadOnly {
		line += ":ro"
	}
	return line
}

// secret are names of variables and options that hold what nobody is to know.
var secret = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)(^|[_-])(passw(or)?d|passwd|passphrase|secret|token|api_?key|private_?key|credentials?)([_-]|$)`)
})

// withPassword is a URL with a password in it.
var withPassword = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[a-z]://[^/\s:@]*:[^@/\s]+@`) })

// secretNames are what in an ini looks like a secret, by name alone.
func secretNames(c *vassal.Config) (all []string) {
	add := func(kind, name, value string) {
		if value != "" && !strings.HasPrefix(value, "/") && (secret().MatchString(name) || withPassword().MatchString(value)) {
			all = append(all, kind+" "+name)
		}
	}
	for _, variable := range c.Env {
		name, value, _ := strings.Cut(variable, "=")
		add("env", name, value)
	}
	for _, p := range slices.Concat(c.App, c.Pushed) {
		add("option", p.Key, p.Value)
	}
	if slices.ContainsFunc(c.Command, withPassword().MatchString) {
		all = append(all, "a URL in its command")
	}
	return all
}

// What is the host's own, and who has it needs no other way out.
var (
	doors = []string{"docker.sock", "containerd.sock", "podman.sock", "crio.sock", "libvirt-sock", "system_bus_socket", "incus.socket", "lxd"}
	// whole are folders that are too much as a whole, below are so with all in them.
	whole = []string{"/dev", "/etc", "/home", "/lib", "/media", "/mnt", "/opt", "/run", "/run/dbus", "/run/systemd", "/srv", "/var", "/var/lib", "/var/log", "/var/run"}
	below = []string{"/bin", "/boot", "/etc/cron.d", "/etc/ssh", "/etc/sudoers.d", "/etc/systemd", "/lib64", "/root", "/sbin", "/usr/bin", "/usr/lib", "/usr/sbin", "/var/lib/docker", "/var/spool/cron"}
	disks = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^/dev/(mem|kmem|port|kmsg|mapper|disk|sd|vd|xvd|nvme|dm-|md|loop)`)
	})
)

// delicate says whether a place is the host's own and gives too much away, to
// write or to read.
func delicate(path string, written bool) bool {
	if slices.Contains(doors, filepath.Base(path)) || disks().MatchString(path) || slices.Contains([]string{"/dev", "/run", "/var/run", "/root", "/home", "/run/dbus", "/run/systemd"}, path) {
		return true
	}
	return written && (slices.Contains(whole, path) || slices.ContainsFunc(below, func(dir string) bool { return vassal.Under(path, dir) }))
}

// look adds what the kernel says, or the plan where nothing runs.
func (a *appraisal) look() {
	if a.why != "" {
		return
	}
	r, f := a.resolved, &a.facts
	confinement := r.plan.Confinement()
	a.observed = r.plan.Foresee(r.namespaces, r.net)
	if a.generation != nil {
		o, err := a.generation.Observe()
		switch {
		case errors.Is(err, vassal.ErrEnded): // what its ini asks for is what the next one gets
		case err != nil:
			a.why = err.Error()
			return
		default:
			a.observed, confinement = o, a.generation.Confinement()
			used := a.whole.RecentUsage()
			f.Running, f.PID, f.Limits.UsedMemory, f.Limits.UsedPIDs = true, o.PID, used.Memory, used.PIDs
		}
	}
	o := a.observed
	f.Rights.UID, f.Rights.Root = o.UID, slices.Contains(o.IDs, 0)
	f.Rights.Capabilities, f.Rights.NoNewPrivs, f.Rights.Filtered = append([]string{}, o.Capabilities...), o.NoNewPrivs, o.Filtered
	f.Files.Open, f.Files.Setuid, f.Files.Executable, f.Files.Knows = o.Open, o.Setuid, o.Executable, vassal.LandlockABI()
	f.Sight = exposure.Sight{Shared: o.Shared, Tmp: o.Tmp, Run: o.Run, Dev: o.Dev, Kernel: o.Machine}
	f.Network.Listens = o.Listens
	if confinement != nil {
		f.Level, f.Files.Landlock = string(confinement.Level), confinement.Landlock
		f.Rights.Strict = o.Filtered && confinement.Level == vassal.LevelStrict
		f.Network.Counted = confinement.Counted && confinement.Landlock > 0
		f.Lacks = append(slices.Clone(confinement.Lacks), f.Lacks...)
	}
	a.lookAtCode()
}

// lookAtCode lists what the app executes and its ini, where its mounts keep nobody
// from writing. Whose the files are is for the asker to see.
func (a *appraisal) lookAtCode() {
	c := a.config
	dir := c.Chdir
	if dir == "" {
		dir = a.resolved.dir
	}
	paths := []string{c.File}
	add := func(path string) {
		if path = filepath.Clean(path); !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if !slices.Contains(paths, path) && len(paths) < 32 {
			paths = append(paths, path)
		}
	}
	args := c.Args()
	if len(c.App) > 0 {
		args = args[:1]
		for _, p := range c.App {
			if slices.Contains([]string{"wsgi-file", "psgi", "rack", "file", "lua", "pecan", "paste", "php-app"}, p.Key) {
				args = append(args, p.Value)
			}
		}
	}
	for i, arg := range args {
		if isScript(arg) || i == 0 && strings.Contains(arg, "/") {
			add(arg)
		}
	}
	for _, path := range paths {
		if !a.observed.Sealed(path) {
			a.facts.Files.Code = append(a.facts.Files.Code, exposure.Code{Path: path, Writable: givenBy(c, path)})
		}
	}
}

// isScript says whether a word names a program's text.
func isScript(word string) bool {
	switch filepath.Ext(word) {
	case ".py", ".wsgi", ".js", ".mjs", ".rb", ".ru", ".php", ".pl", ".psgi", ".lua", ".sh", ".jar":
		return !strings.ContainsAny(word, " ;|&")
	}
	return false
}

// givenBy is the line by which a full level lets the app write a path.
func givenBy(c *vassal.Config, path string) string {
	for _, w := range c.Confine.Writable {
		if vassal.Under(path, w.Path) {
			return "writable = " + w.Path
		}
	}
	for _, b := range c.Confine.Binds {
		if !b.ReadOnly && vassal.Under(path, b.Target) {
			return bindLine(b)
		}
	}
	return ""
}
