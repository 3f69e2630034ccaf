package main

import (
	"syscall"
	"testing"

	"fiefdom/emperor"
)

// The snakes and camels of EmperorProtocol. Each says what it is told, and what
// the tests tell it to say, by way of a file, when it is told to reload.
const (
	pythonVassal = `import os, sys
def log(*words): print(*words, flush=True)
has_emperor = os.environ.get('UWSGI_EMPEROR_FD')
if not has_emperor: sys.exit('no emperor')
log("I'm a vassal snake!")
fd = int(has_emperor)
while True:
    told = os.read(fd, 1)
    if not told:
        log('lost'); sys.exit(1)
    log('told', told[0])
    if told[0] == 0: sys.exit(0)
    for word in open('/run/t/say').read().split():
        if word.startswith('exit'): sys.exit(int(word[4:]))
        os.write(fd, bytes([int(word)]))
`
	perlVassal = `use strict; use warnings; $| = 1;
my $has_emperor = $ENV{'UWSGI_EMPEROR_FD'};
die 'no emperor' unless $has_emperor;
print "I am a vassal.\n";
open(my $fd, '+<&=', $has_emperor) or die $!;
while (sysread($fd, my $byte, 1)) {
    my $told = ord $byte;
    print "told $told\n";
    exit 0 if $told == 0;
    open(my $file, '<', '/run/t/say') or die $!;
    for my $word (split ' ', <$file> // '') {
        exit $1 if $word =~ /^exit(\d+)/;
        syswrite $fd, chr $word;
    }
}
print "lost\n";
exit 1;
`
)

// A vassal of some 20 lines, in both languages, through all that the document
// has the emperor and it say to each other.
func TestDocumentEmperorProtocol(t *testing.T) {
	var all []promise
	for _, v := range []struct{ language, program, text, hello string }{
		{"python", "python3 /run/t/vassal.py", pythonVassal, "I'm a vassal snake!"},
		{"perl", "perl /run/t/vassal.pl", perlVassal, "I am a vassal."},
	} {
		file := v.program[len(v.program)-len("vassal.py"):]
		ini := "[uwsgi]\nemperor-protocol = true\nunprivileged-binary-patch-arg = " + v.program + "\n"
		all = append(all, promise{
			what:  "in " + v.language,
			files: map[string]string{file: v.text, "say": "", "vassals/snake.ini": ini},
			acts: []act{
				says("snake", v.hello),
				runs("snake"),
				touches("snake"), // 1: a reload, of the same process
				says("snake", "told 1"),
				writes("say", "30"), // asks for a Broodlord, who is none of ours
				touches("snake"),
				says("snake", "told 1"),
				writes("say", "17"), // its loyalty
				touches("snake"),
				says("snake", "told 1"),
				loyal("snake"),
				same("snake"),
				writes("say", "22"), // its leave
				touches("snake"),
				says("snake", "told 1", "told 0"),
				is("snake", emperor.Stopped, ""),
				touches("snake"),
				says("snake", v.hello),
				runs("snake"),
				writes("say", "exit26"), // its exile
				touches("snake"),
				is("snake", emperor.Stopped, "exile"),
				touches("snake"),
				says("snake", v.hello),
				runs("snake"),
				removes("snake"), // 0: the end
				says("snake", "told 0"),
				writes("vassals/snake.ini", ini),
				says("snake", v.hello),
				func(s *witness) { s.stop(syscall.SIGTERM); s.start() },
				says("snake", "told 0", v.hello),
			},
		}, promise{
			what:    "heartbeats in " + v.language,
			emperor: plainEmperor + "emperor-required-heartbeat = 1\n",
			files:   map[string]string{file: v.text, "say": "26", "vassals/snake.ini": ini},
			acts: []act{
				says("snake", v.hello),
				runs("snake"),
				touches("snake"), // sends its first heartbeat, and no more
				says("snake", "told 1", v.hello),
				anew("snake"),
			},
		})
	}
	keep(t, all)
}
