package normalize_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	dict "github.com/mozillazg/go-pinyin"

	"github.com/crmguard/crmguard/encrypt/normalize"
)

// finds reports whether a query, normalised as such, meets a term of a stored name.
func finds(f func(string) []string, query, stored string) bool {
	return slices.ContainsFunc(f(query), func(q string) bool { return slices.Contains(f(stored), q) })
}

func TestPinyinTerms(t *testing.T) {
	for name, want := range map[string]string{
		"任小明":            "ren renxiao rx renxiaoming rxm",
		"吕布":             "lv lu lvbu lubu lb",
		"张Sam":           "zhang zhangsam zs",
		"Zēng  Xiǎomíng": "zengxiaoming",
		"ZXM":            "zxm",
		"Lǚ Bù":          "lvbu lubu",
		"Müller":         "muller",
		"O'Brien":        "obrien",
		"李":              "li",
		"z":              "z",
		"":               "",
		"·-":             "",
		"\xff":           "",
	} {
		if got := strings.Join(normalize.Pinyin(name), " "); got != want {
			t.Errorf("Pinyin(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestPinyinFinds(t *testing.T) {
	for _, tc := range [][2]string{
		{"zeng", "曾小明"}, {"Zeng Xiao", "曾小明"}, {"ZXM", "曾小明"}, {"zengxiaoming", "曾小明"}, {"zx", "曾小明"}, {"ceng", "曾小明"},
		{"shan", "单雄信"}, {"qiu", "仇英"}, {"xie", "解缙"}, {"zha", "查良镛"}, {"zha", "查良鏞"}, {"ou", "区志强"}, {"ge", "盖叫天"},
		{"gai", "盖叫天"}, {"piao", "朴树"}, {"ren", "任贤齐"}, {"yuchi", "尉迟恭"}, {"ycg", "尉迟恭"}, {"moqi", "万俟咏"},
		{"zhangsun", "长孙无忌"}, {"zs", "长孙无忌"}, {"tantai", "澹台灭明"}, {"linghu", "令狐冲"}, {"huyan", "呼延灼"},
		{"yue", "乐毅"}, {"le", "乐嘉"}, {"miao", "缪荃孙"}, {"zhai", "翟志刚"}, {"di", "翟志刚"}, {"hua", "华罗庚"},
		{"xian", "冼星海"}, {"xian", "洗星海"}, {"yun", "员半千"}, {"chong", "种师道"}, {"shao", "召平"}, {"chong", "重阳"}, {"fu", "宓子贱"},
		{"mi", "宓子贱"}, {"she", "折彦质"}, {"nai", "佴赢"}, {"pang", "逄涛"}, {"xun", "郇政"}, {"huan", "郇政"}, {"na", "那英"}, {"ha", "哈文"},
		{"bi", "秘宜"}, {"po", "繁钦"}, {"he", "黑云"}, {"sheng", "盛宣怀"}, {"shi", "石磊"}, {"qu", "曲波"}, {"yan", "燕青"}, {"yu", "於梨华"},
		{"qin", "覃海"}, {"tan", "覃海"}, {"qu", "瞿秋白"}, {"xi", "郗鉴"}, {"chi", "郗鉴"}, {"qie", "郄诜"}, {"wei", "隗嚣"}, {"kui", "隗嚣"},
		{"che", "车晓"}, {"gan", "干宝"}, {"ge", "葛优"}, {"jia", "贾玲"}, {"chao", "晁盖"}, {"chen", "谌龙"}, {"shen", "谌龙"},
		{"bu", "卜算"}, {"guo", "过敏"}, {"ying", "应宁"}, {"ning", "宁静"}, {"zhan", "占山"}, {"ouyang", "欧阳修"}, {"oyx", "歐陽修"},
		{"chanyu", "单于飞"}, {"xiahou", "夏侯惇"}, {"tuoba", "拓跋宏"}, {"yelv", "耶律齐"}, {"yelu", "耶律齐"}, {"yuezheng", "乐正绫"},
		{"lv", "吕蒙"}, {"lu", "吕蒙"}, {"lü", "吕蒙"}, {"nv", "女娲"}, {"liyue", "李乐"}, {"lile", "李乐"}, {"zhangqian", "张茜"},
		{"zhangxi", "张茜"}, {"wangchong", "王重"}, {"aixinjueluopuyi", "爱新觉罗·溥仪"}, {"maimaiti", "买买提·艾力"}, {"zeng xiao", "曾小明"},
		{"anna lee", "Anna Lee"}, {"zhangyi", "张顗"}, {"zhangyi", "张𫖮"},
	} {
		if !finds(normalize.Pinyin, tc[0], tc[1]) {
			t.Errorf("%q does not find %s: %q", tc[0], tc[1], normalize.Pinyin(tc[1]))
		}
	}
	for _, tc := range [][2]string{
		{"z", "曾小明"}, {"zen", "曾小明"}, {"xiaoming", "曾小明"}, {"xm", "曾小明"}, {"zengx", "曾小明"}, {"zengxiaomin", "曾小明"}, {"zxmm", "曾小明"},
		{"zeng", "Zeng Xiaoming"}, {"zhang", "曾小明"}, {"", "曾小明"}, {"zeng", ""}, {"pu", "任朴"}, {"wang", "单于飞"},
	} {
		if finds(normalize.Pinyin, tc[0], tc[1]) {
			t.Errorf("%q finds %s: %q", tc[0], tc[1], normalize.Pinyin(tc[1]))
		}
	}
}

// Terms are bounded whatever is typed.
func TestPinyinBounds(t *testing.T) {
	for _, s := range []string{strings.Repeat("乐", 400), strings.Repeat("曾单仇解", 80), strings.Repeat("吕a", 200), strings.Repeat("a", 5000), strings.Repeat("é", 600), "曾" + strings.Repeat("a", 5000) + "明"} {
		terms := normalize.Pinyin(s)
		if len(terms) == 0 || len(terms) > 8*2*(16+15) {
			t.Errorf("%d terms", len(terms))
		}
		for _, term := range terms {
			if len(term) > max(1100, len(s)) {
				t.Errorf("a term of %d bytes", len(term))
			}
		}
	}
	if got := normalize.Pinyin("曾" + strings.Repeat("a", 5000) + "明"); !slices.Equal(got, []string{"zeng", "ceng"}) {
		t.Errorf("what follows more than any name has is read: %d terms", len(got))
	}
	if got := normalize.Pinyin(strings.Repeat("a", 5000) + "明"); got != nil {
		t.Errorf("%d terms", len(got))
	}
}

// What go-pinyin says is part of stored indexes. When this fails, the dictionary has changed: pin the old
// one or make a version pinyin/2.
func TestDictionaryIsPinned(t *testing.T) {
	h := sha256.New()
	for _, r := range slices.Sorted(maps.Keys(dict.PinyinDict)) {
		first, _, _ := strings.Cut(dict.PinyinDict[r], ",")
		fmt.Fprintf(h, "%x %s\n", r, first)
	}
	const want = "280af93a991822acce4f01f115622311f35e8598a718695781211f031b5180a8"
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
		t.Errorf("the dictionary of readings is %s, not the one of version 1", got)
	}
}

// Folding and readings of every character are part of stored indexes too.
func TestTablesArePinned(t *testing.T) {
	fold, sound := sha256.New(), sha256.New()
	for r := rune(0x3400); r <= 0x9FFF; r++ {
		c := string(r)
		if p := normalize.Person(c); p != c {
			fmt.Fprintf(fold, "%s%s\n", c, p)
		}
		fmt.Fprintln(sound, c, normalize.Pinyin(c), normalize.Pinyin("李"+c))
	}
	for _, s := range []string{"尉迟恭", "万俟咏", "长孙无忌", "澹台灭明", "单于飞", "乐正绫", "吐谷浑氏", "爱新觉罗氏", "毋丘俭", "相里金", "第五伦"} {
		fmt.Fprintln(sound, s, normalize.Pinyin(s))
	}
	if got := fmt.Sprintf("%x", fold.Sum(nil)); got != "aa00a14fc565c1ee2c471f45ca9bd89427a7f6e6fb58a161abb28b39afa02f75" {
		t.Errorf("the folded characters are %s, not those of version 1", got)
	}
	if got := fmt.Sprintf("%x", sound.Sum(nil)); got != "7422bcad7f4969110e0699ebba0e23f9f98e94e259ca50bf22ded9d6fc66bd8e" {
		t.Errorf("the readings are %s, not those of version 1", got)
	}
}

func TestPerson(t *testing.T) {
	for _, same := range [][]string{
		{"张伟", "張偉", "張 偉", "张\u3000偉"},
		{"陈丽华", "陳麗華"},
		{"龚钟书", "龔鍾書", "龔鐘書"},
		{"欧阳娜娜", "歐陽娜娜"},
		{"国泽广樱", "國澤廣櫻", "国沢広桜"},
		{"Anna Lee", "ＡＮＮＡ　ＬＥＥ"},
		{"郑爽", "鄭爽", "\u912d爽"},
	} {
		for _, s := range same[1:] {
			if normalize.Person(s) != normalize.Person(same[0]) {
				t.Errorf("%q and %q differ", s, same[0])
			}
		}
	}
	for _, apart := range [][2]string{{"李乾", "李干"}, {"於飞", "于飞"}, {"张昇", "张升"}, {"陈著", "陈着"}, {"陶喆", "陶哲"}, {"张伟", "张炜"}, {"王芸", "王艺"}} {
		if normalize.Person(apart[0]) == normalize.Person(apart[1]) {
			t.Errorf("%s and %s are one", apart[0], apart[1])
		}
	}
	if normalize.Name("張偉") == normalize.Name("张伟") {
		t.Error("version 1 of name has changed")
	}
	// Samples the other way: simplified text stays as it is.
	const simple = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻柏水窦章云苏潘葛奚范彭郎鲁韦昌马苗凤花方俞任袁柳" +
		"有限责任公司股份集团科技发展投资管理咨询贸易实业北京市上海浙江省杭州西湖区文三路号楼单元室"
	if got := normalize.Person(simple); got != simple {
		t.Errorf("simplified text became %s", got)
	}
	const old = "趙錢孫李周吳鄭王馮陳褚衛蔣沈韓楊朱秦尤許何呂施張孔曹嚴華金魏陶姜戚謝鄒喻柏水竇章雲蘇潘葛奚範彭郎魯韋昌馬苗鳳花方俞任袁柳" +
		"有限責任公司股份集團科技發展投資管理咨詢貿易實業北京市上海浙江省杭州西湖區文三路號樓單元室"
	if got := normalize.Person(old); got != simple {
		t.Errorf("traditional text became\n%s, want\n%s", got, simple)
	}
}

func TestCompany(t *testing.T) {
	for _, tc := range [][2]string{
		{"华为技术有限公司", "华为技术"},
		{"華為技術股份有限公司", "华为技术"},
		{"华为技术（集团）有限公司", "华为技术"},
		{"华为技术集团", "华为技术"},
		{"华为 技术 有限责任公司", "华为技术"},
		{"华为（北京）有限公司", "华为北京"},
		{"华为(北京)有限公司", "华为北京"},
		{"华为技术有限公司北京分公司", "华为技术有限公司北京分公司"},
		{"腾飞投资合伙企业（有限合伙）", "腾飞投资"},
		{"株式会社トヨタ", "トヨタ"},
		{"㈱日立", "日立"},
		{"日立(株)", "日立"},
		{"삼성전자(주)", "삼성전자"},
		{"Acme, Inc.", "acme"},
		{"ACME GmbH & Co. KG", "acme"},
		{"Ａｃｍｅ　Ｌｔｄ．", "acme"},
		{"Acme S.A.", "acme"},
		{"Huawei Technologies Co., Ltd.", "huaweitechnologies"},
		{"Johnson & Johnson", "johnsonandjohnson"},
		{"Johnson and Johnson Inc", "johnsonandjohnson"},
		{"Visa", "visa"}, // sa is no word of its own
		{"Nabisco", "nabisco"},
		{"7-Eleven", "7eleven"},
		{"有限公司", "有限公司"},
		{"Ltd.", "ltd"},
		{"()", ""},
		{"", ""},
		{"\xff", ""},
	} {
		if got := normalize.Company(tc[0]); got != tc[1] {
			t.Errorf("Company(%q) = %q, want %q", tc[0], got, tc[1])
		}
	}
	for _, apart := range [][2]string{{"华为技术有限公司", "华为北京有限公司"}, {"Acme One Ltd", "Acme Two Ltd"}, {"华为", "华为技术有限公司北京分公司"}, {"Müller GmbH", "Muller GmbH"}} {
		if normalize.Company(apart[0]) == normalize.Company(apart[1]) {
			t.Errorf("%s and %s are one", apart[0], apart[1])
		}
	}
}

func TestAddress(t *testing.T) {
	for _, same := range [][]string{
		{"文三路1-3-2-501", "文三路1号3幢2单元501室", "文三路 1 號 3 棟 2 單元 501", "文三路１号三栋二单元501", "文三路1号3号楼2单元501房"},
		{"3-102", "三号楼一百零二室", "3号楼102", "3# 102", "三栋一〇二室"},
		{"中关村大街27", "中关村大街二十七号", "中關村大街 27 號"},
		{"世贸a501", "世贸A座501室", "世貿A-501"},
		{"3层", "三楼", "3楼", "三层"},
		{"五一路3", "五一路3号", "五一路三号"},
		{"12mainstapt4b", "12 Main Street, Apt. 4B", "12 main st apartment 4b"},
		{"5wensanrd", "No. 5, Wensan Road", "5 Wensan Rd."},
		{"1001", "一千零一号"},
		{"10", "十号"},
		{"", "", " , ", "\xff"},
	} {
		for _, s := range same[1:] {
			if got := normalize.Address(s); got != same[0] {
				t.Errorf("Address(%q) = %q, want %q", s, got, same[0])
			}
		}
	}
	for _, apart := range [][2]string{
		{"文三路1号2室", "文三路12号"}, {"1 23 Main St", "12 3 Main St"}, {"3楼", "3栋"}, {"文三路1号", "文二路1号"},
		{"三里屯", "3里屯"}, {"浙江省杭州市", "浙江杭州"}, {"五一路", "51路"},
	} {
		if normalize.Address(apart[0]) == normalize.Address(apart[1]) {
			t.Errorf("%s and %s are one: %s", apart[0], apart[1], normalize.Address(apart[0]))
		}
	}
}

func FuzzPinyin(f *testing.F) {
	for _, s := range []string{"曾小明", "Lǚ Bù", "尉迟恭", "张Sam", "ü", "\u0308", "가나"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		terms := normalize.Pinyin(s)
		if len(terms) > 8*2*(16+15) {
			t.Fatalf("%d terms of %q", len(terms), s)
		}
		for i, term := range terms {
			if term == "" || !utf8.ValidString(term) || slices.Contains(terms[:i], term) {
				t.Fatalf("term %q of %q", term, s)
			}
		}
	})
}

func FuzzCompany(f *testing.F) {
	for _, s := range []string{"华为技术（集团）有限公司", "ACME GmbH & Co. KG", "㈱日立", "S.A.", "Co."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := normalize.Company(s)
		if !utf8.ValidString(got) || strings.ContainsAny(got, " .,()&") {
			t.Fatalf("Company(%q) = %q", s, got)
		}
		if (got == "") != (normalize.Normalizers("CN")["company"](s) == nil) {
			t.Fatalf("the normaliser differs for %q", s)
		}
	})
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"文三路1号3幢二单元501室", "三号楼一百零二室", "No. 5, Wensan Road", "一二三四五六七八九号", "千号", "#1#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := normalize.Address(s)
		if !utf8.ValidString(got) || strings.HasPrefix(got, "-") || strings.HasSuffix(got, "-") || strings.Contains(got, "--") {
			t.Fatalf("Address(%q) = %q", s, got)
		}
	})
}

func ExamplePinyin() {
	fmt.Println(normalize.Pinyin("曾小明"))
	fmt.Println(normalize.Pinyin("Zeng Xiao"))
	// Output:
	// [zeng zengxiao zx zengxiaoming zxm ceng cengxiao cx cengxiaoming cxm]
	// [zengxiao]
}

func ExampleCompany() {
	fmt.Println(normalize.Company("華為技術（集團）有限公司"), normalize.Company("Acme GmbH & Co. KG"))
	// Output: 华为技术 acme
}

func ExampleAddress() {
	fmt.Println(normalize.Address("文三路1號3幢二單元501室"))
	// Output: 文三路1-3-2-501
}

func ExamplePerson() {
	fmt.Println(normalize.Person("張 偉"), normalize.Name("張 偉"))
	// Output: 张伟 張偉
}

func BenchmarkNormalizers(b *testing.B) {
	typed := map[string]string{
		"phone": "138 0013 8000", "email": "Li.Na@Example.com", "name": "张 伟", "text": "张 伟", "person": "張 偉", "pinyin": "曾小明",
		"company": "华为技术有限公司", "address": "浙江省杭州市西湖区文三路1号3幢501室", "idnumber": "11010519491231002X", "uscc": "91350100M000100Y43",
		"bankcard": "4111 1111 1111 1111", "plate": "京A·12345", "digits": "138 0013 8000",
	}
	normalizers := normalize.Normalizers("CN")
	for _, name := range slices.Sorted(maps.Keys(normalizers)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				normalizers[name](typed[name])
			}
		})
	}
}

func BenchmarkPhone(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		normalize.Phone("138 0013 8000", "CN")
	}
}

func BenchmarkPinyin(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		normalize.Pinyin("曾小明")
	}
}
