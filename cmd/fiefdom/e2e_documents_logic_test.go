package main

import (
	"strings"
	"testing"

	"fiefdom/emperor"
)

// gets is an app that tells what its ini made of the variables GOT_….
const gets = "command = /bin/sh -c 'env | grep ^GOT_ | sort | paste -sd\" \"; exec sleep 1000'\n"

// What vassals get by the logic of ConfigLogic and the words of Configuration.
// All of them are under one emperor; relative names begin in their folder.
func TestDocumentConfigLogic(t *testing.T) {
	vassals := map[string]struct{ ini, got string }{
		// ConfigLogic
		"for": {"for = 3031 3032 3033\nenv = GOT_%(_)=127.0.0.1:%(_)\nendfor =\n", "GOT_3031=127.0.0.1:3031 GOT_3032=127.0.0.1:3032 GOT_3033=127.0.0.1:3033"},
		"if-env": {
			"if-env = PATH\nenv = GOT_PATH=it is set\nendif =\nif-not-env = PATH\nenv = GOT_NONE=1\nendif =\nif-env = SHOP\nenv = GOT_VALUE=%(_)\nendif =\nif-env = NO_SUCH_VARIABLE\nenv = GOT_NO=1\nendif =\n",
			"GOT_PATH=it is set GOT_VALUE=open",
		},
		"if-exists": {"if-exists = /run/t/maintainance.txt\nenv = GOT_FILE=%(_)\nendif =\nif-not-exists = /run/t/none.txt\nenv = GOT_NONE=%(_)\nendif =\n", "GOT_FILE=/run/t/maintainance.txt GOT_NONE=/run/t/none.txt"},
		"if-file":   {"if-file = settings.py\nenv = GOT_FILE=%(_)\nendif =\nif-file = /run/t\nenv = GOT_DIR=1\nendif =\nif-not-file = /run/t\nenv = GOT_NOT=%(_)\nendif =\n", "GOT_FILE=settings.py GOT_NOT=/run/t"},
		"if-dir":    {"if-dir = /run/t\nenv = GOT_DIR=%(_)\nendif =\nif-dir = settings.py\nenv = GOT_FILE=1\nendif =\nif-not-dir = settings.py\nenv = GOT_NOT=%(_)\nendif =\n", "GOT_DIR=/run/t GOT_NOT=settings.py"},
		"if-option": {"processes = 2\nif-opt = processes=2\nenv = GOT_TWO=1\nendif =\nif-opt = processes=3\nenv = GOT_THREE=1\nendif =\nif-not-opt = threads\nenv = GOT_NONE=1\nendif =\n", "GOT_NONE=1 GOT_TWO=1"},
		// Configuration: magic variables
		"magic": {
			"env = GOT_n=%n\nenv = GOT_s=%s\nenv = GOT_e=%e\nenv = GOT_p=%p\nenv = GOT_d=%d\nenv = GOT_c=%c\nenv = GOT_0=%0\nenv = GOT_1=%1\nenv = GOT_v=%v\nenv = GOT_u=%u%U%g%G\n",
			"GOT_0=run GOT_1=t GOT_c=vassals GOT_d=/run/t/vassals/ GOT_e=ini GOT_n=magic GOT_p=/run/t/vassals/magic.ini GOT_s=magic.ini GOT_u=0root0root GOT_v=/run/t/vassals",
		},
		// … placeholders and their arithmetic
		"placeholders": {"my_funny_domain = uwsgi.it\nset-ph = space=64\nset-placeholder = base=/var/www\nenv = GOT_dir=%(base)/%(my_funny_domain)\nenv = GOT_space=%(space)\n", "GOT_dir=/var/www/uwsgi.it GOT_space=64"},
		"sum":          {"foo = 17\nbar = 30\ntotal = %(foo + bar + 3)\nenv = GOT_total=%(total)\n", "GOT_total=50"},
		"pipeline":     {"foo = 17\nbar = 30\ntotal = %(foo + bar + 3 * 2)\nenv = GOT_total=%(total)\n", "GOT_total=100"},
		"increment":    {"foo = 29\nbar = %(foo ++)\nenv = GOT_bar=%(bar)\n", "GOT_bar=30"},
		"joined":       {"foo = 2\nbar = 9\nenv = GOT_bar=%(foo bar ++)\n", "GOT_bar=30"},
		"texts":        {"env = GOT_file=@(/run/t/maintainance.txt)\nenv = GOT_env=$(SHOP) $(NONE)\n", "GOT_env=open $(NONE) GOT_file=back soon"},
		// … sections, of this file and of the one loaded last
		"sections": {"ini = :app1\nini = /run/t/defaults.ini\nini = :app2\n[app1]\nenv = GOT_1=own\n[app2]\nenv = GOT_2=own\n", "GOT_1=own GOT_2=the defaults' GOT_d=defaults"},
	}
	p := promise{
		what:    "what vassals get",
		environ: []string{"SHOP=open"},
		before: "echo back soon >maintainance.txt\n" +
			"mkdir -p vassals; touch vassals/settings.py\n",
		files: map[string]string{
			"defaults.ini": "[uwsgi]\nenv = GOT_d=%n\n[app2]\nenv = GOT_2=the defaults'\n",
			// There is no logic within logic.
			"vassals/nested.ini": "[uwsgi]\nif-dir = /run\nfor = 1 2\nenv = GOT_%(_)=1\nendfor =\nendif =\n" + gets,
			// Spaces, comments, and an option without a value.
			"vassals/spaces.ini": "; comment\n# comment\n[uwsgi]\n   env=GOT_1=1\nstrict\n\tenv\t=\tGOT_2=2  \n" + gets,
		},
		acts: []act{
			is("nested", emperor.Invalid, "nested.ini:3: "),
			says("spaces", "GOT_1=1 GOT_2=2"),
		},
	}
	for name, v := range vassals {
		first, rest, more := strings.Cut(v.ini, "\n[")
		ini := "[uwsgi]\n" + first + "\n" + gets
		if more {
			ini += "[" + rest
		}
		p.files["vassals/"+name+".ini"] = ini
		p.acts = append(p.acts, says(name, v.got))
	}
	keep(t, []promise{
		p,
		{
			what:   "an ini with a loop gives a uwsgi its sockets",
			before: "mkdir www",
			files: map[string]string{
				"app.pl":            perlHello,
				"vassals/ports.ini": "[uwsgi]\nmaster = true\nplugin = psgi\n; iterate over a list of ports\nfor = 3031 3032 3033\nsocket = 127.0.0.1:%(_)\nendfor =\nfor-times = 2\nsocket = /run/t/www/%(_).socket\nend-for =\npsgi = /run/t/app.pl\n",
			},
			acts: []act{
				serves("/run/t/www/1.socket", "Hello World"),
				serves("/run/t/www/2.socket", "Hello World"),
				prints("ss -Hltn | awk '{print $4}' | sort", "127.0.0.1:3031\n127.0.0.1:3032\n127.0.0.1:3033\n"),
			},
		},
		{
			what: "a condition is judged at each reload",
			files: map[string]string{
				"vassals/app.ini": "[uwsgi]\nif-exists = /run/t/maintainance.txt\nenv = GOT_ROUTE=.* redirect:/offline\nendif =\nif-reload =\nenv = GOT_AGAIN=1\nendif =\nenv = GOT_END=1\n" + gets,
			},
			acts: []act{
				says("app", "GOT_END=1"),
				writes("maintainance.txt", ""),
				touches("app"),
				says("app", "GOT_END=1 GOT_ROUTE=.* redirect:/offline"),
				does("rm maintainance.txt"),
				touches("app"),
				says("app", "GOT_END=1"),
			},
		},
	})
}
