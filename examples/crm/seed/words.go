package seed

import "github.com/crmguard/crmguard/crm"

var surnames = []struct{ han, latin string }{
	{"王", "wang"}, {"李", "li"}, {"张", "zhang"}, {"刘", "liu"}, {"陈", "chen"}, {"杨", "yang"}, {"赵", "zhao"},
	{"黄", "huang"}, {"周", "zhou"}, {"吴", "wu"}, {"徐", "xu"}, {"孙", "sun"}, {"曾", "zeng"}, {"单", "shan"},
	{"仇", "qiu"}, {"解", "xie"}, {"欧阳", "ouyang"}, {"诸葛", "zhuge"}, {"任", "ren"}, {"区", "ou"},
}

var givenChinese = []string{
	"伟", "芳", "娜", "敏", "静", "丽", "强", "磊", "军", "洋", "勇", "艳", "杰", "娟", "涛", "明", "超", "秀", "霞", "平",
	"刚", "桂", "英", "华", "建", "文", "辉", "玲", "梅", "林", "晨", "雨", "欣", "浩", "宇", "轩",
}

var citiesChina = []string{"上海", "北京", "深圳", "杭州", "苏州", "成都", "武汉", "西安", "青岛", "厦门", "宁波", "长沙"}

var streetsChina = []string{"中山路", "人民路", "解放大道", "世纪大道", "建设路", "科技园路", "滨江路", "长江路"}

var companyWords = []string{"华东", "精工", "远航", "新源", "博达", "瑞丰", "天宇", "恒信", "中联", "卓越", "万象", "蓝海"}

var companyTrades = []string{"仪器", "物流", "餐饮", "软件", "医疗器械", "电子", "食品", "纺织", "建材", "咨询", "自动化", "贸易"}

var companyForms = []string{"有限公司", "集团", "股份有限公司"}

var firstNames = []string{
	"Amelia", "Ben", "Carla", "Dmitri", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Katya", "Liam", "Mina", "Noah",
	"Olga", "Pablo", "Quinn", "Rosa", "Stefan", "Tara", "Uma", "Viktor", "Wendy", "Xavier", "Yara", "Zane",
}

var lastNames = []string{
	"Abbott", "Becker", "Callahan", "Dupont", "Eriksen", "Ferrell", "Garcia", "Hansen", "Ibrahim", "Jansen", "Kowalski",
	"Larsen", "Mosley", "Novak", "Okafor", "Petersen", "Quist", "Rossi", "Shepard", "Tanaka", "Ueda", "Vargas", "Watson", "Young",
}

var citiesWorld = []struct{ name, country string }{
	{"Berlin", "DE"}, {"Boston", "US"}, {"Chicago", "US"}, {"Dublin", "IE"}, {"Lisbon", "PT"}, {"London", "GB"}, {"Lyon", "FR"},
	{"Madrid", "ES"}, {"Oslo", "NO"}, {"Seattle", "US"}, {"Vienna", "AT"}, {"Zurich", "CH"},
}

var streetsWorld = []string{"Harbour Street", "Station Road", "Mill Lane", "High Street", "Park Avenue", "Church Road"}

var industries = []string{"manufacturing", "logistics", "food", "software", "medical", "electronics", "retail", "construction"}

var sources = []string{"exhibition", "referral", "website", "phone", "partner", "advertising"}

var stages = []crm.CustomerStage{
	crm.CustomerNew, crm.CustomerNew, crm.CustomerNegotiation, crm.CustomerContracting, crm.CustomerWon,
	crm.CustomerAtRisk, crm.CustomerOverdue, crm.CustomerDormant,
}

var titles = []string{"Purchasing", "Managing director", "采购经理", "总经理", "Engineer", "Finance", "技术总监", "Operations"}

var channels = []crm.Channel{crm.ChannelCall, crm.ChannelVisit, crm.ChannelWeChat, crm.ChannelEmail}

var priorities = []crm.Priority{crm.PriorityLow, crm.PriorityNormal, crm.PriorityNormal, crm.PriorityHigh, crm.PriorityUrgent}

var notes = []string{
	"Delivery split into two lots, confirm with the warehouse.", "希望下周安排现场演示。", "Asked for a longer payment term.",
	"对报价有疑问，需要重新核算。", "Will decide after the budget meeting.", "已寄样品，等待反馈。", "Wants a reference customer of the same trade.",
	"续约意向明确，月底签合同。",
}

var problems = []string{
	"Display stays dark after the update", "发票抬头需要更改", "Wrong quantity in the last delivery", "设备无法开机",
	"Cannot sign in to the portal", "请求延长保修期",
}

var products = []string{"GX-200 gauge", "GX-400 gauge", "Service plan, one year", "On-site training", "Spare parts kit", "Calibration"}
