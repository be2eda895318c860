package page_test

import (
	"fmt"
	"os"
	"time"

	"github.com/crmguard/crmguard/examples/crm/page"
)

func ExampleMatch() {
	fmt.Println(page.Match("zh-CN,zh;q=0.9,en;q=0.8", ""))
	fmt.Println(page.Match("zh-CN,zh;q=0.9,en;q=0.8", "en"))
	fmt.Println(page.Match("fr", ""))
	// Output:
	// zh-CN
	// en
	// en
}

func ExampleRenderer_Fragment() {
	r, err := page.New(&page.Options{Zone: time.UTC})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = r.Fragment(os.Stdout, "en", &page.Value{Text: "13800135678", Mask: "138****5678", Again: "/customers/7/reveal/phone"})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// <div class="protected open" data-mask="138****5678" data-again="/customers/7/reveal/phone" data-label="Reveal" data-seconds="30" role="status"><bdi class="value">13800135678</bdi> <span class="left"><span data-left>30</span> s</span></div>
}
