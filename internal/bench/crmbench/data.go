package crmbench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// generator makes the i-th customer of so many, the same at each run.
type generator struct {
	rows, owned int // in all, and of the sales person
}

// version of what a generator makes: a kept seed of another one is not used.
const version = 1

const (
	employees = 400
	ours      = 0 // the number of the sales person who is measured
)

var start = time.Date(2024, 1, 8, 1, 0, 0, 0, time.UTC)

// weighted lists, the most frequent first.
var (
	surnames = strings.Fields("王 李 张 刘 陈 杨 黄 赵 吴 周 徐 孙 马 朱 胡 郭 何 林 高 罗 郑 梁 谢 宋 唐 许 韩 冯 邓 曹 彭 曾 肖 田 董 袁 潘 于 蒋 蔡 余 杜 叶 程 苏 魏 吕 丁 任 沈 单 仇 解 查 区 欧阳 司马")
	given    = []rune("伟芳娜敏静秀丽强磊军洋勇艳杰娟涛明超霞平刚桂英华建国文志小红玉兰春梅海波云鹏飞鑫宇浩然子轩雨欣梓涵思远嘉怡晨曦佳琪瑞雪成龙永福德胜金凤")
	family   = strings.Fields("Smith Johnson Brown Taylor Wilson Davies Evans Thomas Roberts Walker Wright Robinson Thompson White Hughes Edwards Green Hall Wood Harris Lewis Martin Jackson Clarke Clark Turner Hill Cooper Morris Moore Ward Watson Anderson Harrison Morgan Baker Patel Kelly Murphy Schneider Okafor Tanaka Moreau Silva Novak")
	first    = strings.Fields("James Mary John Linda Robert Susan Michael Karen David Nancy William Laura Richard Emma Thomas Olivia Daniel Sophia Paul Grace Mark Alice George Helen Peter Julia Simon Clara Adam Ruth Chidi Elif Hiro Ines Lars Mei Nora Omar")
	places   = []struct{ city, area string }{
		{"上海", "021"}, {"北京", "010"}, {"深圳", "0755"}, {"广州", "020"}, {"杭州", "0571"}, {"成都", "028"}, {"武汉", "027"}, {"西安", "029"}, {"南京", "025"}, {"青岛", "0532"},
	}
	towns      = strings.Fields("London Manchester Leeds Bristol Glasgow Cardiff Dublin York Oxford Bath")
	roads      = strings.Fields("中山路 人民路 解放路 建设路 和平路 文化路 长江路 黄河路 学院路 新华路")
	streets    = []string{"High Street", "Station Road", "Church Lane", "Victoria Road", "Mill Lane", "Park Avenue"}
	trades     = strings.Fields("科技 贸易 机械 食品 医药 物流 建材 电子 服装 化工")
	business   = strings.Fields("Logistics Foods Engineering Textiles Software Pharma Trading Motors Energy Design")
	brands     = []rune("华宇恒信金鼎鑫源天成瑞丰宏达中联东方远大新盛")
	words      = strings.Fields("Harbor North Crown Silver Bridge Oak River Summit Atlas Beacon Granite Delta")
	domains    = strings.Fields("example.com mail.example.net corp.example.org post.example.cn")
	industries = strings.Fields("software manufacturing retail health food logistics education finance")
	sources    = strings.Fields("fair web referral phone import partner")
	mobile     = []string{"130", "131", "135", "136", "137", "138", "139", "150", "151", "152", "158", "159", "166", "177", "180", "186", "188", "189", "199"}
	notes      = []string{
		"", "", "asked for an offer in spring", "prefers to be called in the morning", "客户希望下周安排一次产品演示, 预算已经批准", "已寄送样品, 等待反馈",
		"met at the fair; wants references from the same trade before they decide",
	}
)

// pick prefers the front of a list, as names do.
func pick[T any](r *rand.Rand, list []T) T {
	a, b := r.IntN(len(list)), r.IntN(len(list))
	return list[min(a, b)]
}

// employee is the id of the i-th one.
func employee(i int) crm.ID[crm.Employee] {
	return crm.IDAt[crm.Employee](start.Add(time.Duration(i)*time.Hour), source(1, i))
}

// source of the randomness of the i-th thing of a kind.
func source(kind, i int) *rand.ChaCha8 {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], uint64(kind))
	binary.BigEndian.PutUint64(key[8:], uint64(i))
	return rand.NewChaCha8(key)
}

// isOurs tells whether the i-th customer is the sales person's; they lie evenly among all.
func (g generator) isOurs(i int) bool { return (i+1)*g.owned/g.rows != i*g.owned/g.rows }

// customer makes the i-th customer.
func (g generator) customer(i int) *crm.Customer {
	seed := source(2, i)
	r := rand.New(seed)
	owner := 1 + r.IntN(employees)
	if g.isOurs(i) {
		owner = ours
	}
	at := start.Add(time.Duration(i) * time.Minute)
	c := &crm.Customer{
		Meta: crm.Meta[crm.Customer]{
			ID: crm.IDAt[crm.Customer](at, seed), Person: crm.IDAt[crm.Person](at, seed), Owner: employee(owner),
			Team: fmt.Sprintf("/%s/%d/", []string{"east", "west", "south"}[owner%3], owner%8), CreatedAt: at,
		},
		Kind: crm.PersonCustomer, Industry: pick(r, industries), Source: pick(r, sources), Stage: pick(r, crm.CustomerLifecycle().States()),
		OpenValue: int64(r.IntN(5_000_000)), CreditLimit: int64(r.IntN(10)) * 100_000, Currency: "CNY", Country: "CN",
		ExternalID: fmt.Sprintf("K%08d", i), Note: crm.NewText(pick(r, notes)),
	}
	if r.IntN(4) > 0 {
		c.LastFollowUp = at.Add(time.Duration(r.IntN(90*24)) * time.Hour)
	}
	var company, mailbox, site string
	if chinese := r.IntN(100) < 65; chinese {
		name := pick(r, surnames) + string(pick(r, given))
		if r.IntN(5) > 0 {
			name += string(pick(r, given))
		}
		place := pick(r, places)
		c.City, c.Name = place.city, crm.NewText(name)
		c.Phone = crm.NewText(spaced(r, pick(r, mobile)+fmt.Sprintf("%08d", r.IntN(100_000_000))))
		if r.IntN(5) == 0 {
			c.Phone2 = crm.NewText(fmt.Sprintf("%s-%08d", place.area, 20_000_000+r.IntN(60_000_000)))
		}
		c.Address = crm.NewText(fmt.Sprintf("%s市%s%d号%d室", place.city, pick(r, roads), 1+r.IntN(900), 101+r.IntN(2000)))
		company = place.city + string(pick(r, brands)) + string(pick(r, brands)) + pick(r, trades) + "有限公司"
		mailbox, site = fmt.Sprintf("u%d", i), fmt.Sprintf("https://www.k%d.example.cn", i)
	} else {
		a, b := pick(r, first), pick(r, family)
		c.City, c.Country, c.Currency, c.Name = pick(r, towns), "GB", "GBP", crm.NewText(a+" "+b)
		c.Phone = crm.NewText(fmt.Sprintf("+44 7%03d %06d", 400+r.IntN(500), r.IntN(1_000_000)))
		c.Address = crm.NewText(fmt.Sprintf("%d %s, %s", 1+r.IntN(200), pick(r, streets), c.City))
		company = pick(r, words) + " " + pick(r, business) + fmt.Sprintf(" %d Ltd", r.IntN(500))
		mailbox, site = strings.ToLower(a+"."+b)+fmt.Sprint(i), fmt.Sprintf("https://k%d.example.com", i)
	}
	c.Email = crm.NewText(mailbox + "@" + pick(r, domains))
	if r.IntN(10) < 3 {
		c.Kind, c.Contact, c.Name, c.Website = crm.CompanyCustomer, c.Name, crm.NewText(company), crm.NewText(site)
	} else if r.IntN(3) == 0 && c.Country == "CN" {
		c.IDNumber = crm.NewText(idNumber(r))
	}
	return c
}

// spaced writes a mobile number as one of several people would.
func spaced(r *rand.Rand, n string) string {
	switch r.IntN(4) {
	case 0:
		return n[:3] + " " + n[3:7] + " " + n[7:]
	case 1:
		return n[:3] + "-" + n[3:7] + "-" + n[7:]
	case 2:
		return "+86 " + n
	}
	return n
}

// idNumber is one of an identity card, with its check digit.
func idNumber(r *rand.Rand) string {
	born := time.Date(1955, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, r.IntN(18_000))
	n := fmt.Sprintf("%06d%s%03d", []int{310101, 110105, 440305, 330106, 510104}[r.IntN(5)], born.Format("20060102"), r.IntN(1000))
	sum := 0
	for i, w := range []int{7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2} {
		sum += w * int(n[i]-'0')
	}
	return n + string("10X98765432"[sum%11])
}
