package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"fiefdom/emperor"
	"fiefdom/internal/ini"
	"fiefdom/internal/migrate"
	"fiefdom/tuntap"
	"fiefdom/vassal"
)

// loaded is an emperor's ini.
type loaded struct {
	config   *emperor.Config
	networks []tuntap.NetworkOptions
	warnings ini.Errors
	files    []string // that it was read from
}

// mustExist is the error for a file that is not there, with its exit code.
func mustExist(path string) error {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, emperor.ErrNotFound)
	}
	return err
}

// loadEmperor reads an emperor's ini. All that is wrong with it is printed;
// the error is then an invalidConfig.
func loadEmperor(path string) (*loaded, error) {
	if err := mustExist(path); err != nil {
		return nil, err
	}
	l, errs := readEmperor(path)
	if errs.Failed() {
		return nil, printErrors(errs)
	}
	l.warnings = errs
	return l, nil
}

// expandEmperor reads an emperor's ini. What belongs to who runs the command,
// such as standard input and UWSGI_* of the environment, is his file's alone.
func expandEmperor(path string) (*ini.File, ini.Errors) {
	options := ini.Options{IsOption: knownToEmperor}
	if _, foreign := ownerOf(path); !foreign {
		options = ini.Trusted(options)
		options.Environ = slices.DeleteFunc(options.Environ, notEmperors)
	}
	f, err := ini.Load(path, options)
	if err == nil {
		return f, nil
	}
	if errs, ok := errors.AsType[ini.Errors](err); ok {
		return nil, errs
	}
	return nil, ini.Errors{{Pos: ini.Pos{File: path}, Message: err.Error()}}
}

// notEmperors says that a variable is no option of the emperor's: vassals get
// it, or his own starter's protocol means it.
func notEmperors(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return strings.HasPrefix(name, "UWSGI_VASSAL_") || slices.Contains(vassal.ProtocolEnv, name)
}

func readEmperor(path string) (*loaded, ini.Errors) {
	f, errs := expandEmperor(path)
	if errs != nil {
		return nil, errs
	}
	return parseEmperor(path, f)
}

func parseEmperor(path string, f *ini.File) (*loaded, ini.Errors) {
	errs := f.Warnings
	config, more := emperor.Parse(f)
	errs = append(errs, more...)
	networks, more := tuntap.ParseNetworks(f.Pairs)
	errs = append(errs, more...)
	for _, e := range ini.Unknown(f, knownToEmperor, emperorNames(), nil) {
		e.Warning = false
		errs = append(errs, e)
	}
	errs = append(errs, idle(f)...)
	if len(config.Monitors) == 0 && len(networks) == 0 {
		errs = append(errs, ini.Error{Pos: ini.Pos{File: path}, Message: "this is no emperor's ini; it needs emperor = DIRECTORY"})
	}
	l := &loaded{config: config, networks: networks}
	errs = append(errs, config.CheckBridges(l.vassalNetworks())...)
	errs = append(errs, config.ReadPolicy(l.vassalNetworks())...)
	l.files = append(l.files, config.Policy.Files()...)
	for _, p := range f.Pairs {
		if !slices.Contains(l.files, p.Pos.File) {
			l.files = append(l.files, p.Pos.File)
		}
	}
	return l, errs
}

// idle warns of options that uWSGI's emperor would honour and ours does not.
func idle(f *ini.File) ini.Errors {
	var errs ini.Errors
	said := map[string]bool{}
	for _, p := range f.Pairs {
		if said[p.Key] || f.Placeholders[p.Key] || !knownToEmperor(p.Key) {
			continue
		}
		said[p.Key] = true
		if fate, why := migrationTables.Judge(migrate.Option{Name: p.Key, Side: migrate.Emperor}); fate == migrate.Missing {
			errs = append(errs, ini.Error{Pos: p.Pos, Warning: true, Message: fmt.Sprintf("%s does nothing in an emperor's file: %s", p.Key, why)})
		}
	}
	return errs
}

// emperorDocs are the options that an emperor's file honours.
func emperorDocs() []ini.Doc {
	docs := ini.Docs("emperor", emperor.Options)
	docs = append(docs, ini.Docs("network", tuntap.Options)...)
	docs = append(docs, ini.Docs("hooks", vassal.HookOptions)...)
	return append(docs, ini.Docs("emperor-hooks", vassal.EmperorHookOptions)...)
}

func emperorNames() []string {
	var names []string
	for _, d := range emperorDocs() {
		names = append(append(names, d.Name), d.Aliases...)
	}
	return names
}

// knownToEmperor says whether an emperor's file may have the option. uWSGI's
// options are accepted there: they are its users' files.
func knownToEmperor(name string) bool {
	return slices.Contains(emperorNames(), name) || vassal.Known(name)
}

// vassalNetworks is what the emperor knows of the networks.
func (l *loaded) vassalNetworks() []emperor.Network {
	var all []emperor.Network
	for _, n := range l.networks {
		all = append(all, emperor.Network{
			Device: n.Device, Socket: n.Socket, Addresses: n.Addresses, AttachAll: n.AttachAll,
			Written: written(&n), Isolated: n.Isolated(),
			Gateway: n.Gateway.IsValid(), FarEnds: n.AllFarEnds(),
			Shadowed: func(d *vassal.DeviceSpec) ini.Errors { return n.ShadowedRules(d.Rules) },
		})
	}
	return all
}
