package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"fiefdom/internal/nettest"
)

// browser is a tab of a headless Chromium. What its pages complain of, such as a
// breach of their policy, fails the test.
type browser struct {
	t       *testing.T
	ctx     context.Context
	mu      sync.Mutex
	trouble []string
}

// newBrowser starts a Chromium, which needs root here as the emperor does.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	nettest.Root(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(2*time.Minute))
	allocator, end := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(end)
	ctx, done := chromedp.NewContext(allocator)
	t.Cleanup(done)
	b := &browser{t: t, ctx: ctx}
	// It starts here, and ctx is its life.
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	b.do(chromedp.EmulateViewport(1280, 900))
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, text := range b.trouble {
			t.Errorf("the browser complains: %s", text)
		}
	})
	return b
}

// hear takes down what the page complains of.
func (b *browser) hear(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		b.trouble = append(b.trouble, fmt.Sprintf("%+v", ev.ExceptionDetails))
	case *cdplog.EventEntryAdded:
		b.trouble = append(b.trouble, ev.Entry.Text+" "+ev.Entry.URL)
	}
}

// do does things in the tab, which a busy machine may take its time for.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// forgive takes back complaints that a test expects.
func (b *browser) forgive(part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trouble = slices.DeleteFunc(b.trouble, func(text string) bool { return strings.Contains(text, part) })
}

// js is what an expression of the page is.
func js[T any](b *browser, expression string) T {
	b.t.Helper()
	return result(b, chromedp.Evaluate[T](expression))
}

// result is what one action in the tab has as its result.
func result[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	value, err := try(b, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

// try is what one action in the tab has as its result. One in a page that gives
// way to the next fails.
func try[T any](b *browser, action chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Minute)
	defer cancel()
	return chromedp.Run(ctx, action)
}

// click clicks on what a CSS selector finds.
func (b *browser) click(selector string) { b.t.Helper(); b.do(chromedp.Click(chromedp.CSS(selector))) }

// follow clicks on what leads to another page, or to this one anew, and waits
// until that is there.
func (b *browser) follow(selector string) {
	b.t.Helper()
	js[bool](b, "document.documentElement.left = true")
	b.click(selector)
	b.shows("the page after "+selector, "!document.documentElement.left && document.readyState === 'complete'")
}

// shows waits until an expression of the page holds. A page that is on its way
// may have nothing yet of what the expression asks for.
func (b *browser) shows(what, expression string) {
	b.t.Helper()
	var held bool
	var err error
	defer func() {
		if !held {
			b.t.Logf("the page, after %v:\n%s", err, js[string](b, "document.body.innerText"))
		}
	}()
	nettest.Eventually(b.t, 2*patience, what, func() bool {
		held, err = try(b, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		return held && err == nil
	})
}

// press presses a key as a keyboard does: what the page does with it decides
// whether it is also a letter.
func (b *browser) press(key string) {
	b.t.Helper()
	for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
		p := input.DispatchKeyEventParams{Type: kind, Key: key}
		if kind == input.DispatchKeyEventTypeKeyDown {
			p.Text = key
		}
		if _, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, p); err != nil {
			b.t.Fatal(err)
		}
	}
}

// scripts switches the page's own scripts off or on, from the next page on.
func (b *browser) scripts(on bool) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on}); err != nil {
		b.t.Fatal(err)
	}
}

// shoot writes pictures of the page at some widths, light and dark, where
// FIEFDOM_TEST_SHOTS says; without it nothing.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("FIEFDOM_TEST_SHOTS")
	if dir == "" {
		return
	}
	for _, v := range []struct {
		name   string
		width  int64
		height int64
		scheme string
	}{{"wide", 1280, 900, "light"}, {"dark", 1280, 900, "dark"}, {"phone", 360, 740, "light"}} {
		b.do(chromedp.EmulateViewport(v.width, v.height))
		scheme := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: v.scheme}}}
		if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, scheme); err != nil {
			b.t.Fatal(err)
		}
		whole := result(b, chromedp.FullScreenshot(100))
		if err := os.WriteFile(filepath.Join(dir, name+"-"+v.name+".png"), whole, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	b.do(chromedp.EmulateViewport(1280, 900))
}

// tunnel is what ssh -L does: a port of this machine's loopback that leads to
// what dial reaches. It ends with the test.
func tunnel(t *testing.T, dial func() (net.Conn, error)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer near.Close()
				far, err := dial()
				if err != nil {
					return
				}
				defer far.Close()
				end := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
				defer end()
				wg.Go(func() { _, _ = io.Copy(far, near); far.Close() })
				_, _ = io.Copy(near, far)
			})
		}
	})
	t.Cleanup(func() { stop(); l.Close(); wg.Wait() })
	return l.Addr().String()
}
