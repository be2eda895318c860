package sandbox

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

var (
	surnames = strings.Fields("王 李 张 刘 陈 杨 赵 黄 周 吴 徐 孙 马 朱 胡 林 郭 何 高 罗")
	given    = strings.Fields("伟 芳 娜 敏 静 丽 强 磊 洋 勇 艳 杰 娟 涛 明 超 秀 霞 平 刚 桂 英 华 建 文 辉 玲 梅 晨 雨 欣 浩 宇 轩")
	places   = strings.Fields("云溪 青禾 明湖 松岭 白石 长汀 南屏 东篱")
	roads    = strings.Fields("测试路 示例街 演示大道 样本巷")
	trades   = strings.Fields("仪器 物流 餐饮 软件 电子 食品 纺织 建材 咨询 贸易")
	first    = strings.Fields("Amelia Ben Carla Dmitri Elena Farid Grace Hugo Ines Jonas Katya Liam Mina Noah Olga Pablo Quinn Rosa Stefan Tara Uma Viktor Wendy Xavier Yara Zane")
	last     = strings.Fields("Abbott Becker Callahan Dupont Eriksen Ferrell Garcia Hansen Ibrahim Jansen Kowalski Larsen Mosley Novak Okafor Petersen Quist Rossi Shepard Tanaka Ueda Vargas Watson Young")
	latin    = strings.Fields("amelia ben carla elena grace hugo ines jonas liam mina noah olga pablo rosa tara uma wendy yara")
	streets  = []string{"Sample Street", "Example Road", "Test Lane", "Sandbox Avenue"}
	towns    = strings.Fields("Sampleton Exampleford Testbury Sandhaven")
	forms    = strings.Fields("Ltd Inc GmbH Group Partners")
	phrases  = []string{
		"Asked for a longer term of payment.", "Delivery in two lots.", "Wants a demonstration.", "Decides after the meeting.",
		"To be called again.", "Sample was sent.", "已寄样品，等待反馈。", "希望下周安排演示。", "对报价有疑问。", "月底前再联系。",
	}
)

// draw invents from one stream.
type draw struct {
	seed    [sha256.Size]byte // of the inventor's key
	n       uint64
	chinese bool
}

// below returns the next number of the stream, from 0 to n-1.
func (d *draw) below(n int) int {
	d.n++
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(d.seed[:], d.n))
	return int(binary.BigEndian.Uint64(sum[:]) % uint64(n))
}

func (d *draw) pick(from []string) string { return from[d.below(len(from))] }

func (d *draw) name() string {
	if !d.chinese {
		return d.pick(first) + " " + d.pick(last)
	}
	n := d.pick(surnames) + d.pick(given)
	if d.below(3) > 0 {
		n += d.pick(given)
	}
	return n
}

func (d *draw) company() string {
	if d.chinese {
		return d.pick(places) + d.pick(trades) + "有限公司"
	}
	return d.pick(last) + " & " + d.pick(last) + " " + d.pick(forms)
}

func (d *draw) address() string {
	if d.chinese {
		return d.pick(places) + "市" + d.pick(roads) + fmt.Sprint(1+d.below(400)) + "号"
	}
	return fmt.Sprint(1+d.below(900)) + " " + d.pick(streets) + ", " + d.pick(towns)
}

// code returns n letters and digits.
func (d *draw) code(n int) string {
	const alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[d.below(len(alphabet))]
	}
	return string(b)
}

// text is one to three sentences, with a code by which equal ones are known.
func (d *draw) text() string {
	var b strings.Builder
	for range 1 + d.below(3) {
		b.WriteString(d.pick(phrases))
		b.WriteByte(' ')
	}
	return b.String() + "[" + d.code(6) + "]"
}

// idNumber is a resident number of GB 11643 with a right check digit, in a region that is not given out.
func (d *draw) idNumber() string {
	s := fmt.Sprintf("999901%d%02d%02d%03d", 1950+d.below(55), 1+d.below(12), 1+d.below(28), d.below(1000))
	weights := [17]int{7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2}
	sum := 0
	for i, w := range weights {
		sum += int(s[i]-'0') * w
	}
	return s + string("10X98765432"[sum%11])
}
