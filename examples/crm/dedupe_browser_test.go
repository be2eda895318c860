package main_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDuplicateJourney: somebody makes a customer who exists, is warned, and saves all the same; finds the pair, sees both side by side, merges them with a choice of
// field, and takes it back. In both languages, wide and narrow.
//
//crm:item 12 partly
func TestDuplicateJourney(t *testing.T) {
	p := serve(t, filepath.Join(t.TempDir(), "data"), nil, "--seed=false")
	p.signIn(t, "admin")
	b := open(t, p)
	b.signIn("admin@demo.example", newPassword)
	enter := func(name, phone string) {
		t.Helper()
		b.visit("/customers/new")
		b.do(chromedp.SendKeys(chromedp.CSS(`[name=name]`), name), chromedp.SendKeys(chromedp.CSS(`[name=phone]`), phone))
		b.do(chromedp.Evaluate[chromedp.Void](`document.querySelector('[name=kind]').value = 'person'`))
		b.press(`main form[action="/customers"] button.primary`)
	}
	each := func(do func(lang string, width int64, english bool)) {
		for _, lang := range []string{"en", "zh-CN,zh"} {
			b.Language(t, lang)
			for _, width := range []int64{1280, 390} {
				b.Viewport(t, width)
				do(lang, width, lang == "en")
			}
		}
		b.Language(t, "en")
		b.Viewport(t, 1280)
	}

	enter("曾小明", "138 0013 5678")
	require.Regexp(t, customerPath, b.eval(`location.pathname`))
	each(func(lang string, width int64, english bool) {
		enter("Zeng Xiaoming", "+86 138-0013-5678")
		assert.Equal(t, "/customers", b.eval(`location.pathname`), "nothing is stored")
		if text := b.text(); english {
			assert.Contains(t, text, "This seems to exist already")
			assert.Contains(t, text, "Phone: equal but for spelling")
			assert.Contains(t, text, "曾小明")
		} else {
			assert.Contains(t, text, "这条记录似乎已存在")
			assert.Contains(t, text, "仍然保存")
		}
		assert.Equal(t, "Zeng Xiaoming", b.eval(`document.querySelector('[name=name]').value`), "what was typed is kept")
		b.picture(shotName("duplicate-warning", lang, width))
	})
	enter("Zeng Xiaoming", "+86 138-0013-5678")
	b.press(`button[name=anyway]`)
	second := b.eval(`location.pathname`)
	require.Regexp(t, customerPath, second)

	b.pictures("duplicates-none", "/customers/duplicates")
	b.visit("/customers/duplicates")
	b.press(`form[action="/customers/duplicates"] button`)
	for deadline := time.Now().Add(30 * time.Second); b.eval(`String(!!document.querySelector('a[href^="/customers/pair"]'))`) != "true"; b.visit("/customers/duplicates") {
		require.True(t, time.Now().Before(deadline), "the search does not end: %s", b.text())
		time.Sleep(100 * time.Millisecond)
	}
	assert.Contains(t, b.text(), "2 records, 1 certain, 0 likely")
	b.pictures("duplicates", "/customers/duplicates")
	pair := b.eval(`document.querySelector('a[href^="/customers/pair"]').getAttribute("href")`)
	b.pictures("duplicate-pair", pair)
	b.pictures("duplicates-of-one", second+"/duplicates")

	each(func(lang string, width int64, english bool) {
		b.visit(pair)
		kept := b.eval(`document.querySelector('[name=keep]').value`)
		was := b.eval(`document.querySelector('input[name="take.name"][value=keep]').parentElement.innerText.trim()`)
		takes := b.eval(`document.querySelector('input[name="take.name"][value=drop]').parentElement.innerText.trim()`)
		require.NotEqual(t, was, takes)
		b.do(chromedp.Click(chromedp.CSS(`input[name="take.name"][value=drop]`)))
		b.press(`form.pair button.primary`)
		merge := b.eval(`location.pathname`)
		require.Regexp(t, `^/merges/[0-9a-f-]{36}$`, merge)
		b.picture(shotName("merged", lang, width))
		b.visit("/customers/" + kept)
		assert.Contains(t, b.eval(`document.querySelector("h1").innerText`), takes)
		b.visit(merge)
		b.press(`form[action="` + merge + `/undo"] button`)
		if english {
			assert.Contains(t, b.text(), "The merge is undone")
		} else {
			assert.Contains(t, b.text(), "合并已撤销")
		}
		b.picture(shotName("merge-undone", lang, width))
		b.visit("/customers/" + kept)
		assert.Contains(t, b.eval(`document.querySelector("h1").innerText`), was)
	})
	b.pictures("merges", "/merges")
	b.visit("/customers/duplicates")
	b.calm()
	p.stop(t)
	green(t, nil, "--data", p.data)
}
