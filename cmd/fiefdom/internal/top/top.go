package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"charm.land/bubbles/v2/viewport"
	tea "charm.land/bubbletea/v2"

	"fiefdom/emperor"
)

// Options are what the table is made of.
type Options struct {
	Emperor *emperor.Client
	Name    string                              // of the instance, for the head
	Status  func(emperor.Status) (lines string) // the words of "fiefdom status"
	In      io.Reader                           // the terminal
	Out     io.Writer
}

// Bounds in time.
const (
	refresh  = time.Second
	askTime  = 5 * time.Second  // for an answer
	wordTime = 45 * time.Second // for a stop or restart; the emperor's own limit is shorter
)

// Run draws until the user quits or ctx is done.
func Run(ctx context.Context, o Options) error {
	p := tea.NewProgram(newModel(ctx, o), tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(o.Out))
	_, err := p.Run()
	if errors.Is(err, tea.ErrInterrupted) || ctx.Err() != nil {
		return nil
	}
	return err
}

// mode is what keys are for.
type mode int

const (
	browsing  mode = iota
	filtering      // letters are the filter's
	asking         // a question waits for yes
	reading        // the pane is open
)

// model is what is on the screen.
type model struct {
	Options
	ctx           context.Context //nolint:containedctx // bubbletea calls the model back without one
	mode          mode
	width, height int

	rates   rates
	rows    []row // all
	shown   []row // the chosen, in order
	took    time.Duration
	by      int // the column of the order
	reverse bool
	filter  string

	selected string // name
	first    int    // row on the screen

	word    string // that is asked about
	notice  string // what became of the last word
	trouble string // why the emperor does not answer; empty: it does

	pane    viewport.Model
	subject string // of the pane: "logs" or "status"
}

func newModel(ctx context.Context, o Options) *model {
	return &model{Options: o, ctx: ctx, width: 80, height: 24, pane: viewport.New()}
}

type (
	answer struct {
		all  []emperor.Status
		at   time.Time
		took time.Duration
		err  error
	}
	tick    struct{}
	page    struct{ vassal, subject, text string }
	outcome struct{ text string }
)

// Init asks for the first time.
func (m *model) Init() tea.Cmd { return m.ask }

func (m *model) ask() tea.Msg {
	ctx, cancel := context.WithTimeout(m.ctx, askTime)
	defer cancel()
	began := time.Now()
	all, err := m.Emperor.List(ctx)
	return answer{all, time.Now(), time.Since(began), err}
}

// Update takes what happened.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.arrange()
	case answer:
		m.take(msg)
		return m, tea.Tick(refresh, func(time.Time) tea.Msg { return tick{} })
	case tick:
		if m.mode == reading {
			return m, tea.Batch(m.ask, m.open(m.subject))
		}
		return m, m.ask
	case page:
		m.show(msg)
	case outcome:
		m.notice = msg.text
	case tea.KeyPressMsg:
		return m, m.press(msg)
	}
	return m, nil
}

func (m *model) take(a answer) {
	if a.err != nil {
		m.trouble = a.err.Error()
		return
	}
	m.trouble, m.took = "", a.took
	m.rows = m.rates.rows(a.all, a.at)
	m.arrange()
}

// arrange fits what is shown to the filter, the order and the screen. The
// selection stays with its vassal, wherever that goes.
func (m *model) arrange() {
	m.pane.SetWidth(m.width)
	m.pane.SetHeight(max(1, m.height-2))
	at := m.index()
	m.shown = chosen(m.rows, m.filter, m.by, m.reverse)
	if len(m.shown) == 0 {
		m.first = 0
		return
	}
	if !slices.ContainsFunc(m.shown, func(r row) bool { return r.Name == m.selected }) {
		m.selected = m.shown[min(max(at, 0), len(m.shown)-1)].Name
	}
	at, space := m.index(), m.space()
	m.first = max(0, min(m.first, len(m.shown)-space))
	m.first = min(at, max(m.first, at-space+1))
}

// index is the selected row's, -1 without any.
func (m *model) index() int {
	return slices.IndexFunc(m.shown, func(r row) bool { return r.Name == m.selected })
}

// space is how many rows fit: without the head's two lines, the titles and the foot's two.
func (m *model) space() int { return max(1, m.height-5) }

func (m *model) move(by int) {
	if len(m.shown) == 0 {
		return
	}
	m.selected = m.shown[min(max(m.index()+by, 0), len(m.shown)-1)].Name
	m.arrange()
}

// open asks for what the pane shows.
func (m *model) open(subject string) tea.Cmd {
	name := m.selected
	if m.index() < 0 {
		return nil
	}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, askTime)
		defer cancel()
		text, err := m.text(ctx, name, subject)
		if err != nil {
			text = err.Error()
		}
		return page{name, subject, text}
	}
}

func (m *model) text(ctx context.Context, name, subject string) (string, error) {
	if subject == "status" {
		s, err := m.Emperor.Get(ctx, name)
		if err != nil {
			return "", err
		}
		return m.Status(s), nil
	}
	var b bytes.Buffer
	err := m.Emperor.Logs(ctx, name, false, &b)
	return b.String(), err
}

// show puts a text into the pane, and follows its end unless the reader has gone up.
func (m *model) show(p page) {
	if m.mode != reading && m.mode != browsing || p.vassal != m.selected {
		return
	}
	fresh := m.mode != reading || m.subject != p.subject
	follow := p.subject == "logs" && (fresh || m.pane.AtBottom())
	m.mode, m.subject = reading, p.subject
	var lines []string
	for line := range strings.SplitSeq(strings.TrimRight(p.text, "\n"), "\n") {
		lines = append(lines, clean(line))
	}
	m.pane.SetContent(strings.Join(lines, "\n"))
	if follow {
		m.pane.GotoBottom()
	} else if fresh {
		m.pane.GotoTop()
	}
}

// tell tells the selected vassal a word, and says what became of it.
func (m *model) tell(word string) tea.Cmd {
	name := m.selected
	m.notice = fmt.Sprintf("%s %s …", word, clean(name))
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, wordTime)
		defer cancel()
		s, err := m.Emperor.Do(ctx, name, word)
		if err != nil {
			return outcome{fmt.Sprintf("%s %s: %s", word, clean(name), clean(err.Error()))}
		}
		return outcome{fmt.Sprintf("%s is %s", clean(name), s.State)}
	}
}
