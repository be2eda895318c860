package normalize

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Company returns the name of a company folded as Person does, without punctuation and without its legal
// form: 华为技术有限公司, 華為技術股份有限公司 and "华为技术（集团）" are one, as are "Acme, Inc." and
// "ACME GmbH & Co. KG". What stands in brackets stays, without them: 华为(北京)有限公司 is 华为北京. A
// branch (分公司) keeps all its words. "&" is "and". A name of nothing but a legal form stays.
func Company(typed string) string {
	s := strings.ReplaceAll(simplified(foldCase(typed)), "&", " and ")
	for _, form := range legalPrefixes {
		if rest := strings.TrimLeft(strings.TrimLeft(s, " ("), " "); strings.HasPrefix(rest, form) {
			if rest = rest[len(form):]; alnum(rest) != "" {
				s = rest
				break
			}
		}
	}
	core, _ := splitLegal(s)
	return alnum(core)
}

var (
	legalPrefixes = []string{"株式会社", "有限会社", "合同会社", "주식회사", "株)", "주)"}

	// legalSuffixes are tried in order, so the longer come first.
	legalSuffixes = []string{
		"股份有限公司", "有限责任公司", "集团有限公司", "集团公司", "股份公司", "有限公司", "总公司", "公司", "集团",
		"特殊普通合伙", "有限合伙", "普通合伙", "合伙企业", "个人独资企业", "个体工商户",
		"株式会社", "有限会社", "合同会社", "주식회사", "유한회사", "(株", "(주",
	}

	branches = []string{"分公司", "子公司"}

	// legalWords are compared without dots, in lower case.
	legalWords = words(`ltd limited inc incorporated llc llp lp plc corp corporation co company gmbh mbh ag kg kgaa ohg ug eg
		sa sas sarl srl spa sl slu sca bv nv cv ab oy oyj as asa aps pte pty bhd sdn kk gk doo sro kft zrt nyrt ooo oao zao pjsc
		jsc ltda lda eireli sicav scs`)
	linkWords = words("and und et y i")
)

func words(list string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(list) {
		out[w] = true
	}
	return out
}

// splitLegal cuts the legal form off the end of a company's name. Without a core there is no form.
func splitLegal(s string) (core, form string) {
	named := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r) }
	first := strings.IndexFunc(s, named)
	plain := simplified(s)
	core, cut := s, false
	for {
		t := strings.TrimRightFunc(core, func(r rune) bool { return !named(r) })
		same := ""
		if len(plain) == len(s) {
			same = plain[:len(t)]
		}
		next := cutForm(t, same, cut)
		if next == t || len(next) <= first {
			return core, s[len(core):]
		}
		core, cut = next, true
	}
}

// cutForm cuts one word of a legal form, or a link word after one was cut. plain is s in simplified characters,
// or nothing when that is of another length.
func cutForm(s, plain string, cut bool) string {
	if plain != "" {
		for _, b := range branches {
			if strings.HasSuffix(plain, b) {
				return s
			}
		}
		for _, form := range legalSuffixes {
			if strings.HasSuffix(plain, form) {
				return s[:len(s)-len(form)]
			}
		}
	}
	at := len(s)
	for at > 0 && (s[at-1] == '.' || s[at-1] < utf8.RuneSelf && unicode.IsLetter(rune(s[at-1]))) {
		at--
	}
	if at > 0 {
		if r, _ := utf8.DecodeLastRuneInString(s[:at]); unicode.IsLetter(r) && r < 0x2E80 || unicode.IsNumber(r) || unicode.IsMark(r) {
			return s // the end of a longer word
		}
	}
	word := strings.ToLower(strings.ReplaceAll(s[at:], ".", ""))
	if legalWords[word] || cut && linkWords[word] {
		return s[:at]
	}
	return s
}
