package top

import (
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
)

// words are what a key tells the selected vassal, after a yes.
var words = map[string]string{"r": "restart", "x": "stop", "u": "start"}

// press does what a key is for.
func (m *model) press(k tea.KeyPressMsg) tea.Cmd {
	if k.String() == "ctrl+c" {
		return tea.Quit
	}
	switch m.mode {
	case filtering:
		m.pressFilter(k)
		return nil
	case asking:
		m.mode = browsing
		if k.String() == "y" && m.index() >= 0 {
			return m.tell(m.word)
		}
		m.notice = ""
		return nil
	case reading:
		switch k.String() {
		case "q", "esc", "enter":
			m.mode = browsing
			return nil
		}
		var cmd tea.Cmd
		m.pane, cmd = m.pane.Update(k)
		return cmd
	}
	return m.pressTable(k)
}

func (m *model) pressTable(k tea.KeyPressMsg) tea.Cmd {
	m.notice = ""
	switch key := k.String(); key {
	case "q":
		return tea.Quit
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup":
		m.move(-m.space())
	case "pgdown", "space":
		m.move(m.space())
	case "home", "g":
		m.move(-len(m.shown))
	case "end", "G":
		m.move(len(m.shown))
	case "/":
		m.mode = filtering
	case "esc":
		m.filter = ""
		m.arrange()
	case "o", "right", ">":
		m.sort(1)
	case "left", "<":
		m.sort(-1)
	case "O":
		m.reverse = !m.reverse
		m.arrange()
	case "l":
		return m.open("logs")
	case "s", "enter":
		return m.open("status")
	default:
		if word, ok := words[key]; ok && m.index() >= 0 {
			m.mode, m.word = asking, word
		}
	}
	return nil
}

// sort takes the next column's order, of those that are shown.
func (m *model) sort(by int) {
	n := len(m.columns())
	m.by, m.reverse = (m.by+by+n)%n, false
	m.arrange()
}

func (m *model) pressFilter(k tea.KeyPressMsg) {
	switch k.String() {
	case "enter":
		m.mode = browsing
	case "esc":
		m.mode, m.filter = browsing, ""
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(m.filter)
		m.filter = m.filter[:len(m.filter)-n]
	case "ctrl+u":
		m.filter = ""
	default:
		m.filter += clean(k.Text)
	}
	m.arrange()
}
