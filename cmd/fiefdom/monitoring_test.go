package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"fiefdom/emperor"
)

// The tables of the page are those of the code.
func TestMonitoringPage(t *testing.T) {
	comparePage(t, "../../docs/monitoring.md", map[string]string{"metrics": metricsTable(), "events": eventsTable()})
}

// comparePage compares tables, by name, with those between the marks of a page.
// With FIEFDOM_TEST_UPDATE=1 they are written anew.
func comparePage(t *testing.T, path string, tables map[string]string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for name, table := range tables {
		begin, end := "<!-- "+name+" -->\n", "<!-- end -->\n"
		_, rest, ok := strings.Cut(page, begin)
		now, _, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("the page has no place for %s", name)
		}
		if now == table {
			continue
		}
		page = strings.Replace(page, begin+now+end, begin+table+end, 1)
		if os.Getenv("FIEFDOM_TEST_UPDATE") != "1" {
			t.Errorf("the table of %s should be:\n%s", name, table)
		}
	}
	if os.Getenv("FIEFDOM_TEST_UPDATE") == "1" {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func metricsTable() string {
	kinds := map[prometheus.ValueType]string{prometheus.GaugeValue: "gauge", prometheus.CounterValue: "counter"}
	s := "| metric | kind | labels | meaning |\n|---|---|---|---|\n"
	for _, m := range metrics {
		s += fmt.Sprintf("| `%s` | %s | %s | %s |\n", m.name, kinds[m.kind], strings.Join(m.labels, ", "), m.help)
	}
	return s
}

func eventsTable() string {
	s := "| kind | what happened |\n|---|---|\n"
	for _, kind := range slices.Sorted(maps.Keys(emperor.Kinds)) {
		s += fmt.Sprintf("| `%s` | %s |\n", kind, emperor.Kinds[kind])
	}
	return s
}

// Alerts that the page shows ask for metrics that there are.
func TestAlertsOfThePageExist(t *testing.T) {
	page, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(page)) {
		_, expr, ok := strings.Cut(line, "expr: ")
		if !ok {
			continue
		}
		for _, word := range strings.FieldsFunc(expr, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
			if !strings.HasPrefix(word, "fiefdom_") {
				continue
			}
			found++
			if !slices.ContainsFunc(metrics, func(m *metric) bool { return m.name == word }) {
				t.Errorf("there is no %s: %s", word, line)
			}
		}
	}
	if found < 5 {
		t.Errorf("the page asks for %d metrics", found)
	}
}
