package demo

import "strings"

// Weighted lists, the most frequent first: see draw.pick.
var (
	surnames = strings.Fields("王 李 张 刘 陈 杨 黄 赵 吴 周 徐 孙 马 朱 胡 郭 何 林 高 罗 郑 梁 谢 宋 唐 许 韩 冯 邓 曹 彭 曾 肖 田 董 袁 潘 于 蒋 蔡 余 杜 叶 程 苏 魏 吕 丁 任 沈 单 仇 解 查 区 欧阳 司马 诸葛")
	// latin is how the surnames above are written in mail addresses.
	latin    = strings.Fields("wang li zhang liu chen yang huang zhao wu zhou xu sun ma zhu hu guo he lin gao luo zheng liang xie song tang xu han feng deng cao peng zeng xiao tian dong yuan pan yu jiang cai yu du ye cheng su wei lu ding ren shen shan qiu xie zha ou ouyang sima zhuge")
	given    = strings.Fields("伟 芳 娜 敏 静 秀 丽 强 磊 军 洋 勇 艳 杰 娟 涛 明 超 霞 平 刚 桂 英 华 建 国 文 志 小 红 玉 兰 春 梅 海 波 云 鹏 飞 鑫 宇 浩 然 子 轩 雨 欣 梓 涵 思 远 嘉 怡 晨 曦 佳 琪 瑞 雪 成 龙 永 福 德 胜 金 凤 玲 辉 林")
	family   = strings.Fields("Smith Johnson Brown Taylor Wilson Davies Evans Thomas Roberts Walker Wright Robinson Thompson White Hughes Edwards Green Hall Wood Harris Lewis Martin Jackson Clarke Clark Turner Hill Cooper Morris Moore Ward Watson Anderson Harrison Morgan Baker Patel Kelly Murphy Schneider Okafor Tanaka Moreau Silva Novak Becker Callahan Dupont Eriksen Garcia Hansen Ibrahim Jansen Kowalski Larsen Petersen Rossi Vargas Young Abbott")
	first    = strings.Fields("James Mary John Linda Robert Susan Michael Karen David Nancy William Laura Richard Emma Thomas Olivia Daniel Sophia Paul Grace Mark Alice George Helen Peter Julia Simon Clara Adam Ruth Amelia Ben Carla Elena Farid Hugo Ines Jonas Katya Liam Mina Noah Olga Pablo Rosa Stefan Tara Viktor Wendy Yara Chidi Elif Hiro Lars Mei Nora Omar")
	places   = strings.Fields("上海 北京 深圳 广州 杭州 成都 武汉 西安 南京 苏州 青岛 长沙 厦门 宁波")
	roads    = strings.Fields("中山路 人民路 解放路 建设路 和平路 文化路 长江路 黄河路 学院路 新华路 世纪大道 科技园路 滨江路")
	streets  = []string{"High Street", "Station Road", "Church Lane", "Victoria Road", "Mill Lane", "Park Avenue", "Harbour Street", "Queens Road"}
	brands   = strings.Fields("华 宇 恒 信 金 鼎 鑫 源 天 成 瑞 丰 宏 达 中 联 东 方 远 大 新 盛 博 卓 越 蓝")
	trades   = strings.Fields("科技 贸易 机械 食品 医药 物流 建材 电子 服装 化工 仪器 软件 纺织 自动化")
	forms    = []string{"有限公司", "有限公司", "股份有限公司", "集团有限公司"}
	coined   = strings.Fields("Harbor North Crown Silver Bridge Oak River Summit Atlas Beacon Granite Delta Cedar Falcon Meridian Quarry")
	business = strings.Fields("Logistics Foods Engineering Textiles Software Pharma Trading Motors Energy Design Instruments Packaging")
	legal    = strings.Fields("Ltd Inc Group Partners")
	domains  = strings.Fields("example.com mail.example.net corp.example.org post.example")

	industries = strings.Fields("manufacturing software retail logistics food medical electronics construction education finance")
	sources    = strings.Fields("exhibition referral website phone partner advertising")
	titlesCN   = strings.Fields("采购经理 总经理 技术总监 财务主管 运营经理 工程师")
	titlesEN   = []string{"Purchasing", "Managing director", "Head of engineering", "Finance", "Operations", "Engineer"}
	notesCN    = []string{"希望下周安排现场演示。", "对报价有疑问，需要重新核算。", "已寄样品，等待反馈。", "续约意向明确，月底签合同。", "预算已经批准，等招标结果。", "要求延长付款期限。"}
	notesEN    = []string{
		"Delivery split into two lots, confirm with the warehouse.", "Asked for a longer payment term.", "Will decide after the budget meeting.",
		"Wants a reference customer of the same trade.", "Prefers to be called in the morning.", "Compares us with two others.",
	}
	problemsCN = strings.Fields("发票抬头需要更改 设备无法开机 请求延长保修期 软件升级后无法登录 送货数量不符")
	problemsEN = []string{"Display stays dark after the update", "Wrong quantity in the last delivery", "Cannot sign in to the portal", "Invoice has the wrong address", "Asks for a longer warranty"}
	products   = []string{"GX-200 gauge", "GX-400 gauge", "Service plan, one year", "On-site training", "Spare parts kit", "Calibration"}
	deals      = []string{"frame contract", "renewal", "pilot", "new line", "second site"}

	mobiles = strings.Fields("154 160 161 163 164 168 169") // given to no operator
)

// town is a place of the English speaking world with the numbers that are kept for fiction there: prefix and how many digits follow.
type town struct {
	city, country, currency, prefix string
	digits                          int
}

var towns = []town{
	{"London", "GB", "GBP", "+44 20 7946 0", 3}, {"Manchester", "GB", "GBP", "+44 161 496 0", 3}, {"Birmingham", "GB", "GBP", "+44 121 496 0", 3}, {"Leeds", "GB", "GBP", "+44 113 496 0", 3},
	{"Glasgow", "GB", "GBP", "+44 141 496 0", 3}, {"Edinburgh", "GB", "GBP", "+44 131 496 0", 3}, {"Cardiff", "GB", "GBP", "+44 29 2018 0", 3}, {"Bristol", "GB", "GBP", "+44 117 496 0", 3},
	{"Liverpool", "GB", "GBP", "+44 151 496 0", 3}, {"Sheffield", "GB", "GBP", "+44 114 496 0", 3}, {"Reading", "GB", "GBP", "+44 118 496 0", 3}, {"York", "GB", "GBP", "+44 7700 900", 3},
	{"Sydney", "AU", "AUD", "+61 2 5550 ", 4}, {"Melbourne", "AU", "AUD", "+61 3 5550 ", 4}, {"Brisbane", "AU", "AUD", "+61 7 5550 ", 4}, {"Perth", "AU", "AUD", "+61 8 5550 ", 4},
	{"Canberra", "AU", "AUD", "+61 2 7010 ", 4}, {"Hobart", "AU", "AUD", "+61 3 7010 ", 4}, {"Cairns", "AU", "AUD", "+61 7 7010 ", 4}, {"Adelaide", "AU", "AUD", "+61 8 7010 ", 4},
}

// cities of North America have the number 555-01xx in each of their area codes.
var cities = []struct {
	city, country, currency string
	areas                   []string
}{
	{"New York", "US", "USD", strings.Fields("212 332 347 646 680 718 838 917 929 934")}, {"Chicago", "US", "USD", strings.Fields("312 331 464 630 708 773 779 815 847 872")},
	{"Los Angeles", "US", "USD", strings.Fields("213 310 323 424 562 626 657 661 714 747 805 818 909 949")}, {"Boston", "US", "USD", strings.Fields("339 351 413 508 617 774 781 857 978")},
	{"Seattle", "US", "USD", strings.Fields("206 253 360 425 509 564")}, {"Houston", "US", "USD", strings.Fields("281 346 409 713 832 936 979")}, {"Atlanta", "US", "USD", strings.Fields("404 470 478 678 706 762 770 912")},
	{"Denver", "US", "USD", strings.Fields("303 719 720 970")}, {"Miami", "US", "USD", strings.Fields("239 305 321 352 386 407 561 727 754 772 786 813 850 863 904 941 954")},
	{"Philadelphia", "US", "USD", strings.Fields("215 267 272 412 445 484 570 610 717 724 814 835 878")}, {"Detroit", "US", "USD", strings.Fields("231 248 269 313 517 586 616 734 810 906 947 989")},
	{"Toronto", "CA", "CAD", strings.Fields("226 249 289 343 365 416 437 519 548 613 647 705 807 905")}, {"Vancouver", "CA", "CAD", strings.Fields("236 250 604 672 778")},
	{"Montreal", "CA", "CAD", strings.Fields("367 418 438 450 514 579 581 819 873")},
}
