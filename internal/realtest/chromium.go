package realtest

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// BrowserOptions of Chromium. The zero value is a browser with script that trusts no test certificate.
type BrowserOptions struct {
	NoScript bool
	SPKI     string // base64 of SHA-256 of the public key of a self-signed certificate to trust; "": none
}

// Browser is one tab of a real Chromium.
type Browser struct {
	Context context.Context
	mu      sync.Mutex
	list    []string
}

// Chromium starts a browser that ends with the test. What the page reports on its console, exceptions and
// breaches of the Content-Security-Policy are collected in Complaints.
func Chromium(t testing.TB, opts BrowserOptions) *Browser {
	t.Helper()
	var err error = errors.New("Chromium is not installed: apt-get install chromium fonts-noto-cjk")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "headless-shell", "headless_shell"} {
		if _, e := exec.LookPath(name); e == nil {
			err = nil
		}
	}
	Require(t, "chromium", err)
	flags := slices.Clone(chromedp.DefaultExecAllocatorOptions[:])
	if opts.SPKI != "" {
		flags = append(flags, chromedp.Flag("ignore-certificate-errors-spki-list", opts.SPKI))
	}
	alloc, c1 := chromedp.NewExecAllocator(context.Background(), flags...)
	limit, c2 := context.WithTimeout(alloc, 9*time.Minute)
	ctx, c3 := chromedp.NewContext(limit)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); c3(); c2(); c1() })
	b := &Browser{Context: ctx}
	messages := chromedp.Console(ctx)
	issues := chromedp.Events(ctx, audits.IssueAdded)
	if _, err := chromedp.Call(ctx, audits.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	if opts.NoScript {
		if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			b.add("console: " + m.Text + " " + m.URL)
		}
	}()
	go func() {
		for e, err := range issues {
			if err != nil {
				return
			}
			text := "issue: " + string(e.Issue.Code)
			if d := e.Issue.Details; d != nil && d.GenericIssueDetails != nil {
				text += " " + string(d.GenericIssueDetails.ErrorType)
			}
			b.add(text)
		}
	}()
	return b
}

func (b *Browser) add(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, s)
}

// Complaints returns what was reported since the last call.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.list
	b.list = nil
	return list
}

// Language makes the browser ask for pages in a language, such as "zh-CN,zh".
func (b *Browser) Language(t testing.TB, accept string) {
	t.Helper()
	agent, err := chromedp.Run(b.Context, chromedp.Evaluate[string]("navigator.userAgent"))
	if err == nil {
		_, err = chromedp.Call(b.Context, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{UserAgent: agent, AcceptLanguage: accept})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Viewport sets the width in CSS pixels; below 700 it is a phone.
func (b *Browser) Viewport(t testing.TB, width int64) {
	t.Helper()
	var opts []chromedp.EmulateViewportOption
	height := int64(900)
	if width < 700 {
		opts, height = append(opts, chromedp.EmulateMobile), 844
	}
	if err := chromedp.Do(b.Context, chromedp.EmulateViewport(width, height, opts...)); err != nil {
		t.Fatal(err)
	}
}
