package ini

import (
	"maps"
	"slices"
)

// action is what an option of the dialect does when it is met.
type action int

const (
	actNone         action = iota
	actPlain               // nothing, but the passes leave its value alone
	actEnd                 // ends a block
	actFor                 // opens a loop
	actIf                  // opens a condition
	actIfNot               //
	actSet                 //
	actPlaceholder         //
	actStrict              //
	actInclude             // needs a name that ends in .ini
	actIni                 //
	actPlugin              // remembers the names for if-plugin
	actDeclare             // makes a new option
	actInjectBefore        // text for all files that follow
	actInjectAfter         //
	actBlacklist           // forbids options
	actWhitelist           // forbids all but some
	actResolve             // a placeholder with a host's address
	actRefuse              // would change the meaning of the file in a way that we do not have
)

// word is an option of the dialect itself.
type word struct {
	act     action
	base    string // the condition or loop that it means: "env" of "if-not-env"
	kind    Kind
	meaning string
}

// Options that act when the passes are over.
const (
	inheritKey = "inherit"         // names a file
	declareKey = "declare-option2" // declares an option for the lines below it
)

// words are the dialect's own options, by name.
var words = makeWords()

func makeWords() map[string]word {
	w := map[string]word{
		"set":             {actSet, "", Text, "define an option or a placeholder: name=value"},
		"set-placeholder": {actPlaceholder, "", Text, "define a placeholder for %(name): name=value; an option's name is an error"},
		"strict":          {actStrict, "", Bool, "unknown options are errors"},
		"include":         {actInclude, "", Path, "the options of another ini, in this place"},
		"ini":             {actIni, "", Path, "the options of another ini, or of another section of this one (:section), in this place"},
		"config":          {actInclude, "", Path, "the same as include"},
		inheritKey:        {actNone, "", Path, "the options of another ini after all others, without $(), @() and %() in it"},
		"declare-option":  {actDeclare, "", Text, "define an option that stands for others: name=option=$1;option=$2, where $1 is its first word"},
		declareKey:        {actNone, "", Text, "the same as declare-option, but done when all files are read"},
		"inject-before":   {actInjectBefore, "", Path, "put the text of a file before that of each ini read from here on"},
		"inject-after":    {actInjectAfter, "", Path, "put the text of a file after that of each ini read from here on"},
		"blacklist":       {actBlacklist, "", Text, "the options named here are errors up to end-blacklist"},
		"end-blacklist":   {actBlacklist, "", Text, "the end of a blacklist"},
		"whitelist":       {actWhitelist, "", Text, "all options but those named here are errors up to end-whitelist, which must be among them"},
		"end-whitelist":   {actWhitelist, "", Text, "the end of a whitelist"},
		"resolve":         {actResolve, "", Text, "define a placeholder with the IPv4 address of a host: name=host"},
		"for":             {actFor, "list", Text, "repeat the options up to endfor for each word; %(_) is the word"},
		"for-times":       {actFor, "times", Int, "repeat the options up to endfor so many times; %(_) counts from 1"},
		"for-glob":        {actFor, "glob", Text, "repeat the options up to endfor for each file that matches, or the pattern itself"},
		"for-readline":    {actFor, "readline", Path, "repeat the options up to endfor for each line of a file"},
	}
	alias := func(name, of string) { w[name] = w[of] }
	for base, meaning := range conditionMeanings {
		w["if-"+base] = word{actIf, base, Text, "only if " + meaning + ": the options up to endif"}
		w["if-not-"+base] = word{actIfNot, base, Text, "unless " + meaning + ": the options up to endif"}
	}
	alias("set-ph", "set-placeholder")
	alias("ifenv", "if-env")
	alias("ifexists", "if-exists")
	alias("ifplugin", "if-plugin")
	alias("ifdir", "if-dir")
	alias("if-directory", "if-dir")
	for _, name := range []string{"end", "endif", "end-if", "endfor", "end-for"} {
		w[name] = word{actEnd, "", Text, "the end of an if or for"}
	}
	return w
}

// conditionMeanings complete "only if …" for the documentation.
var conditionMeanings = map[string]string{
	"env":            "an environment variable is set (NAME), or has a value (NAME=value)",
	"opt":            "an option is set (NAME), or its first value is this (NAME=value)",
	"exists":         "the file or folder can be read",
	"file":           "it is a regular file",
	"dir":            "it is a folder",
	"plugin":         "an option above loads the plugin",
	"hostname":       "the host has this name",
	"hostname-match": "the host's name matches the regular expression",
	"reload":         "this is not the first start",
}

// foreign are uWSGI's options that act, or are stored, as soon as they are
// met. The refused ones change what other lines mean: skipping them would be a
// guess.
var foreign = map[string]action{
	"plugin": actPlugin, "plugins": actPlugin, "need-plugin": actPlugin, "need-plugins": actPlugin,

	"autoload": actPlain, "command-mode": actPlain, "dlopen": actPlain, "fallback-config": actPlain,
	"immediate-gid": actPlain, "immediate-uid": actPlain, "iprint": actPlain, "listen": actPlain,
	"pcre-jit": actPlain, "plugin-dir": actPlain, "plugins-dir": actPlain, "pluginsdir": actPlain,
	"spooler-processes": actPlain, "umask": actPlain,

	"xml": actRefuse, "xmlconfig": actRefuse, "yaml": actRefuse, "yml": actRefuse,
	"json": actRefuse, "js": actRefuse,
}

// isWord says whether the dialect itself has the option.
func isWord(name string) bool {
	_, ok := words[name]
	return ok
}

// actionOf is what the option does when it is met.
func actionOf(name string) action {
	if w, ok := words[name]; ok {
		return w.act
	}
	return foreign[name]
}

// Dialect describes the options that the dialect itself has.
func Dialect() []Doc {
	var docs []Doc
	for _, name := range slices.Sorted(maps.Keys(words)) {
		w := words[name]
		docs = append(docs, Doc{Name: name, Kind: w.kind, Meaning: w.meaning, Repeats: true, Group: "ini"})
	}
	return docs
}
