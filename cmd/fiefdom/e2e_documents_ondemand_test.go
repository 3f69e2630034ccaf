package main

import (
	"testing"

	"fiefdom/emperor"
)

// asleep waits until nothing of a vassal runs, and somebody waits at its socket.
func asleep(vassal string) act { return is(vassal, emperor.Sleeping, "") }

// listener is an app that answers one request at its descriptor 0 and ends.
const listener = `import socket
s = socket.socket(fileno=0)
print(s.getsockname(), flush=True)
c, _ = s.accept()
c.recv(4096)
c.sendall(b'HTTP/1.0 200 OK\r\n\r\nHello World')
print('done', flush=True)
`

// OnDemandVassals: the three ways to name a socket, and how a vassal goes back
// to sleep.
func TestDocumentOnDemandVassals(t *testing.T) {
	const psgi = "[uwsgi]\nplugin = psgi\npsgi = /run/t/app.pl\nmaster = true\n"
	keep(t, []promise{
		{
			what:    "a file beside the ini names the socket",
			emperor: plainEmperor + "emperor-on-demand-extension = .socket\n",
			before:  "mkdir doors",
			files: map[string]string{
				"app.pl":                      perlHello,
				"vassals/myapp.ini":           psgi,
				"vassals/myapp.ini.socket":    "/run/t/doors/any name\n",
				"vassals/overtcp.ini":         psgi + "protocol = http\n",
				"vassals/overtcp.ini.socket":  "127.0.0.1:4040\n",
				"vassals/always.ini":          psgi + "socket = /run/t/doors/always\n",
				"vassals/nobody.ini.socket":   "/run/t/doors/nobody\n",
				"vassals/sleepers.ini":        "[uwsgi]\ncommand = python3 /run/t/listener.py\n",
				"listener.py":                 listener,
				"vassals/sleepers.ini.socket": "127.0.0.1:4041",
			},
			acts: []act{
				asleep("myapp"), asleep("overtcp"), asleep("sleepers"),
				serves("/run/t/doors/always", "Hello World"),
				serves("/run/t/doors/any name", "Hello World"),
				runs("myapp"),
				serves("127.0.0.1:4040", "Hello World"),
				runs("overtcp"),
				asleep("sleepers"),
				serves("127.0.0.1:4041", "Hello World"),
				says("sleepers", "('127.0.0.1', 4041)", "done"),
				asleep("sleepers"),
				serves("127.0.0.1:4041", "Hello World"),
				does("test ! -e doors/nobody"),
			},
		},
		{
			what:    "a folder of sockets, and apps that go back to sleep when they idle",
			emperor: plainEmperor + "emperor-on-demand-directory = /run/t/doors\n",
			before:  "mkdir doors",
			files: map[string]string{
				"app.pl":            perlHello,
				"vassals/myapp.ini": psgi + "idle = 1\ndie-on-idle = true\n",
			},
			acts: []act{
				asleep("myapp"),
				serves("/run/t/doors/myapp.socket", "Hello World"),
				runs("myapp"),
				asleep("myapp"),
				serves("/run/t/doors/myapp.socket", "Hello World"),
				runs("myapp"),
				touches("myapp"), // a reload, as of any vassal
				reports("vassal reloaded"),
				serves("/run/t/doors/myapp.socket", "Hello World"),
				asleep("myapp"),
				touches("myapp"), // which wakes nobody
				reports("ini changed"),
				asleep("myapp"),
				serves("/run/t/doors/myapp.socket", "Hello World"),
				removes("myapp"),
				does("test ! -e doors/myapp.socket"),
			},
		},
		{
			what:    "a command names the socket",
			emperor: plainEmperor + "emperor-on-demand-exec = /run/t/where\n",
			before:  "mkdir doors; printf '#!/bin/sh\\necho \"$1 in $(pwd)\" >>/run/t/asked; echo /run/t/doors/$(basename \"$1\" .ini)\\n' >where; chmod 755 where",
			files: map[string]string{
				"app.pl":            perlHello,
				"vassals/myapp.ini": psgi,
			},
			acts: []act{
				asleep("myapp"),
				holds("asked", "myapp.ini in /run/t/vassals\n"),
				serves("/run/t/doors/myapp", "Hello World"),
				runs("myapp"),
			},
		},
	})
}
