package page

import (
	"strconv"
	"strings"
)

// Languages returns the languages of the catalogues, the default first.
func Languages() []string { return []string{"en", "zh-CN"} }

// Match chooses a language: the one of the cookie when there is such a language, else the best of the
// Accept-Language header (RFC 9110 section 12.5.4), else the default. Every Chinese gets zh-CN.
func Match(acceptLanguage, cookie string) string {
	all := Languages()
	for _, l := range all {
		if l == cookie {
			return l
		}
	}
	best, chosen := 0.0, all[0]
	for i, part := range strings.Split(acceptLanguage[:min(len(acceptLanguage), 1000)], ",") {
		if i == 50 {
			break
		}
		tag, params, _ := strings.Cut(part, ";")
		q := 1.0
		if name, value, ok := strings.Cut(strings.TrimSpace(params), "="); ok && strings.EqualFold(strings.TrimSpace(name), "q") {
			var err error
			if q, err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil || !(q >= 0 && q <= 1) {
				continue
			}
		}
		tag, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
		for _, l := range all {
			if primary, _, _ := strings.Cut(l, "-"); q > best && primary == tag {
				best, chosen = q, l
			}
		}
	}
	return chosen
}
