package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"fiefdom/emperor"
	"fiefdom/firewall"
	"fiefdom/internal/plaintext"
	"fiefdom/tuntap"
)

// vassalPage is what the page of one vassal shows.
type vassalPage struct {
	page
	Name, Shown string
	Gone        bool
	State       emperor.State
	Facts       []factView
	Trouble     []string
	Plots       []plotView
	Reasons     string
	Drops       []dropView
	DropTrouble string
	Processes   []processView
	Lines       []lineView
	Few, Many   int // lines that are shown, and that may be asked for
	Lost        string
	Events      []eventView
}

type factView struct {
	Name  string
	Value any // text, or our own markup
}

type plotView struct {
	Title, Now, Top string
	Plot            template.HTML
}

type dropView struct {
	Reason, Place, Rule, Count, Packet, Explain string
	Last                                        template.HTML
}

type processView struct {
	Name, Kind, Command, Error string
	State                      emperor.State
	Since                      template.HTML
	PID, Restarts              int
}

type lineView struct{ Time, Text string }

// Lines of a log on a page.
const (
	usualLines = 100
	moreLines  = 2000
)

func (s *site) vassal(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	query := template.URLQueryEscaper(name)
	one, err := s.find(r)
	p := vassalPage{page: s.page(plaintext.Line(name), "api/vassal?name="+query), Name: name, Shown: plaintext.Line(name)}
	for _, ev := range s.Events(name, 20) {
		p.Events = append(p.Events, viewEvent(ev))
	}
	if errors.Is(err, errNoVassal) {
		// It may come back, and what happened to it is still worth a look.
		p.Gone = true
		p.answer(w, http.StatusNotFound, "vassal", &p)
		return
	}
	p.State = one.State
	p.addFacts(&one)
	p.addPlots(&one)
	p.Reasons = reasons(one.Drops)
	p.addDrops(r.Context(), s)
	for _, ps := range one.Processes {
		p.Processes = append(p.Processes, processView{
			plaintext.Line(ps.Name), ps.Kind, plaintext.Line(cut(ps.Command, 200)), plaintext.Line(cut(ps.Error, 200)), ps.State, when(ps.Since), ps.PID, ps.Restarts,
		})
	}
	p.Few, p.Many = atMost(r, "last", usualLines, mostLines), moreLines
	for _, l := range s.Logs(name, p.Few) {
		p.Lines = append(p.Lines, lineView{clock(l.Time), plaintext.Line(l.Text)})
	}
	if o := one.Output; o != nil && o.Lost.Bytes > 0 {
		p.Lost = fmt.Sprintf("%d bytes with %d ends of lines did not get into a log: %s", o.Lost.Bytes, o.Lost.Lines, plaintext.Line(o.Reason))
	}
	p.answer(w, http.StatusOK, "vassal", &p)
}

func (p *vassalPage) addFacts(r *row) {
	add := func(name string, value any) {
		if value != "" {
			p.Facts = append(p.Facts, factView{name, value})
		}
	}
	add("since", when(r.Since))
	if r.State == emperor.Backoff {
		add("next start", fmt.Sprintf("in %s, after %d deaths in a row", plaintext.Age(time.Until(r.NextStart)), r.Deaths))
	}
	add("says", plaintext.Line(cut(r.Says, 1000)))
	if r.LastEnd != "" {
		add("last end", plaintext.Line(cut(r.LastEnd, 1000))+", "+plaintext.Age(time.Since(r.LastEndAt))+" ago")
	}
	add("restarts", strconv.Itoa(r.Restarts))
	var addresses []string
	for _, a := range r.Addresses {
		addresses = append(addresses, a.String())
	}
	add("address", strings.Join(addresses, ", "))
	add("published", strings.Join(emperor.PublishedTexts(r.Published), ", "))
	add("socket", plaintext.Line(r.Socket))
	if r.PID > 0 {
		add("process", fmt.Sprintf("pid %d, uid %d, %d processes and threads", r.PID, r.UID, r.PIDs))
	}
	if r.PIDs > 0 {
		add("CPU time", time.Duration(r.CPUSeconds*float64(time.Second)).Round(10*time.Millisecond).String())
	}
	add("traffic", plaintext.Size(float64(r.RxBytes))+" in, "+plaintext.Size(float64(r.TxBytes))+" out")
	add("limits", plaintext.Line(limits(r.Limits)))
	if r.OOMKills > 0 {
		add("killed for lack of memory", strconv.FormatUint(r.OOMKills, 10))
	}
	if o := r.Output; o != nil {
		add("log", plaintext.Line(o.File))
	}
	add("ini", plaintext.Line(r.File))
	add("command", plaintext.Line(cut(strings.Join(r.Command, " "), 1000)))
	if r.Error != "" {
		for text := range strings.SplitSeq(r.Error, "\n") {
			p.Trouble = append(p.Trouble, plaintext.Line(text))
		}
	}
	for _, warning := range r.Warnings {
		p.Trouble = append(p.Trouble, plaintext.Line(warning))
	}
}

func limits(l *emperor.LimitStatus) string {
	if l == nil {
		return ""
	}
	var all []string
	if l.CPUs > 0 {
		all = append(all, strconv.FormatFloat(l.CPUs, 'f', -1, 64)+" CPUs")
	}
	if l.MemoryBytes > 0 {
		all = append(all, plaintext.Size(float64(l.MemoryBytes))+" memory")
	}
	if l.PIDs > 0 {
		all = append(all, strconv.Itoa(l.PIDs)+" processes")
	}
	return strings.Join(append(all, l.IO...), ", ")
}

// addPlots draws what the vassal did in the last hour.
func (p *vassalPage) addPlots(r *row) {
	now := func(known bool, text string) string {
		if !known {
			return "–"
		}
		return text
	}
	add := func(title, at string, top func(float64) string, lines ...line) {
		words := title + " in the last hour, at most " + top(peak(lines))
		p.Plots = append(p.Plots, plotView{title, at, top(peak(lines)), plot(length, 60, words, lines...)})
	}
	add("bytes a second", now(r.measured, rate(r.in)+" in, "+rate(r.out)+" out"), plaintext.Size, line{"in", of(r.points, pickIn), true}, line{"out", of(r.points, pickOut), false})
	add("CPU", now(r.measured && r.PIDs > 0, percent(r.cpu)+" %"), func(f float64) string { return percent(float32(f)) + " %" }, line{"cpu", of(r.points, pickCPU), true})
	add("memory", now(r.PIDs > 0, plaintext.Size(float64(r.MemoryBytes))), plaintext.Size, line{"memory", of(r.points, pickMemory), true})
	add("drops a second", now(r.measured, perSecond(float64(r.drops))), perSecond, line{"drops", of(r.points, pickDrops), true})
}

func perSecond(f float64) string {
	if f >= 10 {
		return plaintext.Count(uint64(f))
	}
	return strconv.FormatFloat(f, 'g', 2, 64)
}

// addDrops tells the drops that happened, each with the line of the rule that
// made it and the question that fiefdom explain answers.
func (p *vassalPage) addDrops(ctx context.Context, s *site) {
	if s.Drops == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	peers, err := s.Drops(ctx, p.Name)
	if err != nil {
		p.DropTrouble = plaintext.Line(err.Error())
		return
	}
	for _, peer := range peers {
		for i := range peer.Drops {
			d := &peer.Drops[i]
			v := dropView{Reason: d.Reason.String(), Count: plaintext.Count(d.Count), Last: when(d.Last), Explain: p.explain(d)}
			if d.Rule != nil {
				v.Rule = plaintext.Line(d.Rule.Text)
				if d.Rule.File != "" {
					v.Place = plaintext.Line(d.Rule.File) + ":" + strconv.Itoa(d.Rule.Line)
				}
			}
			if d.Dst.IsValid() {
				v.Packet = fmt.Sprintf("%s %s %s → %s", d.Way, d.Proto, d.Src, place(d.Dst, d.Port))
			}
			p.Drops = append(p.Drops, v)
		}
		for reason, n := range peer.Others {
			p.Drops = append(p.Drops, dropView{Reason: reason.String(), Count: plaintext.Count(n), Last: when(time.Time{})})
		}
	}
}

func place(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

// harmless are words that a shell takes as they are.
var harmless = regexp.MustCompile(`^[A-Za-z0-9._][A-Za-z0-9._-]*$`)

// explain is the command that tells all rules that such a packet comes to, and
// what to write to let it through.
func (p *vassalPage) explain(d *tuntap.DropExample) string {
	other := d.Dst
	if d.Way == firewall.In {
		other = d.Src
	}
	if !d.Dst.IsValid() || !other.IsValid() || d.Proto == "" || !harmless.MatchString(p.Name) {
		return ""
	}
	words := []string{"fiefdom explain", p.Name, d.Way.String(), d.Proto, place(other, d.Port)}
	if cmp.Or(p.Instance, "emperor") != "emperor" {
		words = append(words, "--instance", p.Instance)
	}
	return strings.Join(words, " ")
}
