package normalize

import "strings"

// surnames has the readings of surnames that differ from the dictionary's first reading of the character
// or that are several, the commoner one first.
var surnames = table(`
曾 zeng
单 shan
仇 qiu
解 xie
查 zha
区 ou
盖 ge gai
朴 piao pu
尉 wei yu
乐 yue le
缪 miao
翟 zhai di
洗 xian
员 yun
贠 yun
种 chong
召 shao
重 chong
宓 mi fu
折 she
佴 nai
郇 xun huan
秘 bi
繁 po
黑 he
覃 qin tan
郗 xi chi
郄 qie xi
隗 wei kui
乾 qian gan
谌 chen shen
厘 li xi
卜 bu
薄 bo
柏 bai bo
都 du
筠 yun jun
句 gou ju
适 kuo shi
祭 zhai ji
牟 mu mou
莘 shen xin
藏 zang cang
乜 nie mie
么 yao
粘 nian
蔚 yu wei
长 zhang chang
晟 cheng sheng
乘 sheng cheng
载 dai zai
行 xing hang
费 fei bi
隽 juan jun
番 pan fan
阿 a e
术 zhu shu
笮 ze zuo
炅 gui
角 jue jiao
六 lu
阚 kan
能 nai
`)

// compounds are surnames of two characters and more, their readings one syllable each. The usual reading
// of their characters and the surname of the first alone are indexed beside them.
var compounds = compoundTable(`
欧阳 ou yang
司马 si ma
上官 shang guan
诸葛 zhu ge
东方 dong fang
皇甫 huang fu
尉迟 yu chi
公孙 gong sun
长孙 zhang sun
慕容 mu rong
司徒 si tu
司空 si kong
夏侯 xia hou
令狐 ling hu
呼延 hu yan
宇文 yu wen
轩辕 xuan yuan
独孤 du gu
南宫 nan gong
西门 xi men
东郭 dong guo
南门 nan men
百里 bai li
端木 duan mu
澹台 tan tai
万俟 mo qi
单于 chan yu
鲜于 xian yu
闾丘 lü qiu
亓官 qi guan
濮阳 pu yang
公冶 gong ye
公羊 gong yang
公良 gong liang
宗政 zong zheng
淳于 chun yu
太叔 tai shu
申屠 shen tu
仲孙 zhong sun
钟离 zhong li
赫连 he lian
拓跋 tuo ba
完颜 wan yan
纳兰 na lan
叶赫 ye he
那拉 na la
贺兰 he lan
哥舒 ge shu
耶律 ye lü
乐正 yue zheng
漆雕 qi diao
壤驷 rang si
谷梁 gu liang
左丘 zuo qiu
东门 dong men
梁丘 liang qiu
第五 di wu
呼衍 hu yan
爱新觉罗 ai xin jue luo
吐谷浑 tu yu hun
可频 ke pin
斛律 hu lü
宿勤 su qin
车非 che fei
尔朱 er zhu
长鱼 zhang yu
褚师 chu shi
子车 zi ju
毌丘 guan qiu
毋丘 guan qiu
仆固 pu gu
巫马 wu ma
微生 wei sheng
羊舌 yang she
相里 xiang li
夹谷 jia gu
宰父 zai fu
段干 duan gan
`)

// givenNames has the further readings of characters in given names.
var givenNames = table(`
乐 le yue
行 xing hang heng
长 chang zhang
朝 chao zhao
茜 qian xi
莘 xin shen
晟 sheng cheng
曾 zeng ceng
娜 na nuo
觉 jue jiao
传 chuan zhuan
阿 a e
柏 bai bo
薄 bo bao
露 lu lou
强 qiang jiang
识 shi zhi
拓 tuo ta
蔚 wei yu
纤 xian qian
校 xiao jiao
员 yuan yun
颉 jie xie
筠 yun jun
艾 ai yi
伽 jia qie ga
澄 cheng deng
车 che ju
乘 cheng sheng
单 dan shan
仇 chou qiu
解 jie xie
重 zhong chong
还 huan hai
贾 jia gu
隽 jun juan
藏 cang zang
调 tiao diao
都 du dou
奇 qi ji
色 se shai
盛 sheng cheng
率 shuai lü
什 shi shen
宿 su xiu
叶 ye xie
遗 yi wei
殷 yin yan
琢 zhuo zuo
褚 chu zhu
炅 jiong gui
俞 yu shu
蕃 fan bo
`)

// table reads lines of a character and its readings.
func table(text string) map[rune][]string {
	out := map[rune][]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 {
			out[[]rune(f[0])[0]] = f[1:]
		}
	}
	return out
}

// compoundTable reads lines of a surname and its syllables.
func compoundTable(text string) map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 {
			out[f[0]] = f[1:]
		}
	}
	return out
}
