package nat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"fiefdom/internal/netns"
)

// switched is what this instance switched on, kept over its restarts: sysctl
// and value. The settings are those of one network namespace and end with it,
// at the latest at the next boot, and so does what the file says.
type switched struct {
	path   string
	scope  string
	set    map[knob]string
	routes map[string]bool // the devices that have a route for ::1
}

// stateFile is the file's content.
type stateFile struct {
	Scope    string            `json:"scope"` // the boot's id and the namespace
	Switched map[string]string `json:"switched"`
	Routes   []string          `json:"routes,omitempty"`
}

func loadSwitched(dir string) (*switched, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read the boot's id: %w", err)
	}
	ns, err := netns.Own()
	if err != nil {
		return nil, err
	}
	s := &switched{
		path:  filepath.Join(dir, "forwarding.json"),
		scope: fmt.Sprintf("%s net:[%d]", strings.TrimSpace(string(boot)), ns),
		set:   map[knob]string{}, routes: map[string]bool{},
	}
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was switched on: %w", err)
	}
	var file stateFile
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("read what was switched on: %s: %w; remove the file if it is damaged", s.path, err)
	}
	if file.Scope != s.scope {
		return s, nil
	}
	for name, value := range file.Switched {
		if k := knobOf(name); k.wellFormed() {
			s.set[k] = value
		}
	}
	for _, device := range file.Routes {
		s.routes[device] = true
	}
	return s, nil
}

// note records, before it happens, that a knob is set: should we die in
// between, there is a guard too many rather than one too few.
func (s *switched) note(k knob, value string) error {
	if s.set[k] == value {
		return nil
	}
	set := maps.Clone(s.set)
	set[k] = value
	if err := s.save(set, s.routes); err != nil {
		return fmt.Errorf("note that %s is set: %w", k, err)
	}
	return nil
}

// forget takes back what is noted of a knob, after it has been set back.
func (s *switched) forget(k knob) error {
	set := maps.Clone(s.set)
	delete(set, k)
	if err := s.save(set, s.routes); err != nil {
		return fmt.Errorf("note that %s is set back: %w", k, err)
	}
	return nil
}

// forgetGone takes back what is noted of forwarding by devices that are gone, and
// so forward no more: on a host whose devices come and go there would be ever more
// of them. One that comes back is as the host makes it.
func (s *switched) forgetGone(v6 bool) error {
	set := maps.Clone(s.set)
	for _, device := range s.devices(v6) {
		k := forwardingOf(v6, device)
		if now, err := k.value(); err != nil {
			return err
		} else if now == "" {
			delete(set, k)
		}
	}
	if len(set) == len(s.set) {
		return nil
	}
	if err := s.save(set, s.routes); err != nil {
		return fmt.Errorf("note which devices are gone: %w", err)
	}
	return nil
}

// noteRoute records, before it happens, that a device gets a route for ::1.
func (s *switched) noteRoute(device string) error {
	if s.routes[device] {
		return nil
	}
	routes := maps.Clone(s.routes)
	routes[device] = true
	if err := s.save(s.set, routes); err != nil {
		return fmt.Errorf("note it: %w", err)
	}
	return nil
}

// forgetRoute takes that back, after the route is gone.
func (s *switched) forgetRoute(device string) error {
	routes := maps.Clone(s.routes)
	delete(routes, device)
	if err := s.save(s.set, routes); err != nil {
		return fmt.Errorf("note that the route for ::1 is gone from %s: %w", device, err)
	}
	return nil
}

func (s *switched) save(set map[knob]string, routes map[string]bool) error {
	file := stateFile{Scope: s.scope, Switched: map[string]string{}, Routes: slices.Sorted(maps.Keys(routes))}
	for k, v := range set {
		file.Switched[k.String()] = v
	}
	b, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.path, append(b, '\n'), 0o600); err != nil {
		return err
	}
	s.set, s.routes = set, routes
	return nil
}

// devices lists those that forward packets of the family because of us.
func (s *switched) devices(v6 bool) []string {
	var list []string
	for k := range s.set {
		if k.isOf(v6) && k.isForwarding() && k != allForwarding(v6) {
			list = append(list, k.device())
		}
	}
	slices.Sort(list)
	return list
}
