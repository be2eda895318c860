package transfer

import (
	"context"
	"strings"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
)

// Others are the records that rows refer to by name. A nil one finds nothing: its column cannot be filled.
type Others struct {
	Employees *Names // owners, with their teams
	Customers *Names
	Products  *Names
	Pipeline  *sales.Pipeline // of opportunities
}

// NamesOf reads the names of the records that the caller may list. team is nil but for employees. A name that the policy masks is left out.
func NamesOf[P guard.Record](ctx context.Context, c guard.Caller, records *guard.Records[P], name func(P) string, header func(P) (crm.UUID, string)) (*Names, error) {
	n := NewNames()
	q := guard.Query{Limit: 200}
	for {
		p, err := records.List(ctx, c, q)
		if err != nil {
			return nil, err
		}
		for i := range p.Items {
			id, team := header(p.Items[i].Value)
			n.Add(name(p.Items[i].Value), id, team)
		}
		if q.After = p.Next; p.Next == "" {
			return n, nil
		}
	}
}

// Open returns the value of a text that the policy opened, else nothing: a mask is no name.
func Open(t crm.Text) string {
	if t.State() != crm.Clear {
		return ""
	}
	return t.Expose()
}

func owner(o Others) Field {
	return Field{Name: "owner", Kind: Reference, Names: o.Employees, Words: []string{"owner", "salesagent", "salesperson", "rep", "accountmanager", "负责人", "归属人", "销售", "业务员", "客户经理"}}
}

var (
	phoneWords   = []string{"phone", "phone 1", "mobile", "telephone", "tel", "cell", "手机", "手机号", "手机号码", "电话", "联系电话"}
	emailWords   = []string{"email", "email 1", "e-mail", "mail", "邮箱", "电子邮件", "电子邮箱"}
	noteWords    = []string{"note", "notes", "remark", "remarks", "comment", "备注", "说明"}
	cityWords    = []string{"city", "town", "城市"}
	countryWords = []string{"country", "office location", "国家", "国家地区"}
	createdWords = []string{"subscription date", "created", "created at", "date", "创建时间", "创建日期", "日期"}
	firstWords   = []string{"first name", "given name", "名"}
	lastWords    = []string{"last name", "surname", "family name", "姓"}
	sourceWords  = []string{"source", "lead source", "来源", "客户来源"}
)

// person joins the parts of a name; get is that of Finish.
func person(get func(string) string) string {
	return strings.TrimSpace(get("first") + " " + get("last"))
}

// customerStages are the words of the stages of customers.
func customerStages() map[string][]string {
	return map[string][]string{
		"new": {"新客户", "新建"}, "negotiation": {"谈判", "洽谈", "negotiating"}, "contracting": {"签约", "签约中"}, "at_risk": {"有风险", "风险"},
		"payment_overdue": {"逾期", "overdue", "付款逾期"}, "dormant": {"沉睡", "休眠"}, "won": {"成交", "已成交"}, "lost": {"流失", "已流失"},
	}
}

// Customers is the layout of customers. A row with a company is one; a row with a person alone is that person.
func Customers(o Others) Layout[*crm.Customer] {
	return Layout[*crm.Customer]{
		Fields: []Field{
			{Name: "external_id", Kind: Text, Words: []string{"customer id", "account id", "id", "客户编号", "编号"}},
			{Name: "company", Kind: Text, Part: true, Words: []string{"company name", "account", "account name", "organization", "公司", "公司名称", "客户名称", "单位", "企业名称"}},
			{Name: "contact", Kind: Text, Words: []string{"name", "contact name", "contact person", "full name", "姓名", "联系人", "客户姓名"}},
			{Name: "first", Kind: Text, Part: true, Words: firstWords},
			{Name: "last", Kind: Text, Part: true, Words: lastWords},
			{Name: "kind", Kind: Enum, Words: []string{"customer type", "客户类型"}, Values: map[string][]string{"person": {"个人"}, "company": {"公司", "企业"}}},
			{Name: "phone", Kind: Text, Words: phoneWords},
			{Name: "phone2", Kind: Text, Words: []string{"phone 2", "other phone", "电话2", "备用电话"}},
			{Name: "email", Kind: Text, Words: emailWords},
			{Name: "address", Kind: Text, Words: []string{"street", "street address", "地址", "详细地址"}},
			{Name: "website", Kind: Text, Words: []string{"url", "homepage", "网站", "网址"}},
			{Name: "id_number", Kind: Text, Words: []string{"identity number", "身份证", "身份证号", "证件号码"}},
			{Name: "city", Kind: Text, Words: cityWords},
			{Name: "country", Kind: Text, Words: countryWords},
			{Name: "industry", Kind: Text, Words: []string{"sector", "行业"}},
			{Name: "source", Kind: Text, Words: sourceWords},
			{Name: "stage", Kind: Enum, Words: []string{"status", "阶段", "状态", "客户阶段"}, Values: customerStages()},
			{Name: "open_value", Kind: Money, Words: []string{"opportunity value", "商机金额", "在谈金额"}},
			{Name: "credit_limit", Kind: Money, Words: []string{"credit", "信用额度"}},
			{Name: "currency", Kind: Text, Words: []string{"币种", "货币"}},
			{Name: "last_follow_up", Kind: Day, Words: []string{"last contact", "last activity", "最近跟进", "最后跟进时间"}},
			{Name: "created_at", Kind: Day, Words: createdWords},
			{Name: "note", Kind: Text, Words: noteWords},
			owner(o),
		},
		Keys: []string{"external_id"},
		New: func() *crm.Customer {
			return &crm.Customer{Stage: crm.CustomerNew, Source: "import"}
		},
		Finish: func(c *crm.Customer, get func(string) string) []Reason {
			if name := person(get); name != "" && get("contact") == "" {
				c.Contact = crm.NewText(name)
			}
			if company := get("company"); company != "" {
				c.Name = crm.NewText(company)
				if c.Kind == "" || get("kind") == "" {
					c.Kind = crm.CompanyCustomer
				}
			} else if c.Version == 0 {
				c.Name, c.Contact = c.Contact, crm.Text{}
				if c.Kind == "" {
					c.Kind = crm.PersonCustomer
				}
			}
			return nil
		},
	}
}

// Leads is the layout of leads.
func Leads(o Others) Layout[*crm.Lead] {
	return Layout[*crm.Lead]{
		Fields: []Field{
			{Name: "name", Kind: Text, Words: []string{"contact", "contact name", "full name", "姓名", "联系人", "线索名称"}},
			{Name: "first", Kind: Text, Part: true, Words: firstWords},
			{Name: "last", Kind: Text, Part: true, Words: lastWords},
			{Name: "company", Kind: Text, Words: []string{"company name", "account", "公司", "公司名称", "单位"}},
			{Name: "title", Kind: Text, Words: []string{"job title", "position", "职位", "职务"}},
			{Name: "phone", Kind: Text, Words: phoneWords},
			{Name: "email", Kind: Text, Words: emailWords},
			{Name: "city", Kind: Text, Words: cityWords},
			{Name: "country", Kind: Text, Words: countryWords},
			{Name: "source", Kind: Text, Words: sourceWords},
			{Name: "state", Kind: Enum, Words: []string{"status", "stage", "状态", "线索状态"}, Values: map[string][]string{
				"new": {"新线索", "新建"}, "contacted": {"已联系"}, "qualified": {"合格", "已确认"}, "junk": {"无效"},
			}},
			{Name: "created_at", Kind: Day, Words: createdWords},
			{Name: "note", Kind: Text, Words: noteWords},
			owner(o),
		},
		New: func() *crm.Lead { return &crm.Lead{State: crm.LeadNew, Source: "import"} },
		Finish: func(l *crm.Lead, get func(string) string) []Reason {
			if name := person(get); name != "" && get("name") == "" {
				l.Name = crm.NewText(name)
			}
			return nil
		},
	}
}

// Contacts is the layout of contacts of customers that exist.
func Contacts(o Others) Layout[*crm.Contact] {
	return Layout[*crm.Contact]{
		Fields: []Field{
			{Name: "customer", Kind: Reference, Names: o.Customers, Words: []string{"account", "company", "company name", "客户", "客户名称", "公司", "公司名称"}},
			{Name: "name", Kind: Text, Words: []string{"contact", "contact name", "full name", "姓名", "联系人"}},
			{Name: "first", Kind: Text, Part: true, Words: firstWords},
			{Name: "last", Kind: Text, Part: true, Words: lastWords},
			{Name: "title", Kind: Text, Words: []string{"job title", "position", "职位", "职务"}},
			{Name: "phone", Kind: Text, Words: phoneWords},
			{Name: "email", Kind: Text, Words: emailWords},
			{Name: "primary", Kind: Bool, Words: []string{"main contact", "主要联系人", "首要联系人"}},
			{Name: "created_at", Kind: Day, Words: createdWords},
			{Name: "note", Kind: Text, Words: noteWords},
			owner(o),
		},
		Finish: func(c *crm.Contact, get func(string) string) []Reason {
			if name := person(get); name != "" && get("name") == "" {
				c.Name = crm.NewText(name)
			}
			return nil
		},
	}
}

// Products is the layout of products. One without a number has its name for it; its price is in the currency of the mapping.
func Products() Layout[*sales.Product] {
	return Layout[*sales.Product]{
		Fields: []Field{
			{Name: "sku", Kind: Text, Words: []string{"product id", "product code", "item number", "编号", "产品编号", "货号"}},
			{Name: "name", Kind: Text, Words: []string{"product", "product name", "产品", "产品名称", "名称", "商品名称"}},
			{Name: "category", Kind: Text, Words: []string{"series", "product family", "类别", "分类", "系列"}},
			{Name: "unit", Kind: Text, Words: []string{"单位", "计量单位"}},
			{Name: "price", Kind: Money, Words: []string{"sales price", "list price", "unit price", "单价", "价格", "售价"}},
			{Name: "currency", Kind: Text, Words: []string{"币种", "货币"}},
			{Name: "stocked", Kind: Bool, Words: []string{"in stock", "库存管理"}},
			{Name: "state", Kind: Enum, Words: []string{"status", "状态"}, Values: map[string][]string{"active": {"在售", "启用"}, "discontinued": {"停售", "停用"}}},
		},
		Keys: []string{"sku"},
		New:  func() *sales.Product { return &sales.Product{State: sales.ProductActive, Unit: "piece"} },
		Finish: func(p *sales.Product, _ func(string) string) []Reason {
			if p.SKU == "" {
				p.SKU = p.Name
			}
			return nil
		},
	}
}

// Opportunities is the layout of opportunities in one pipeline. The column stage has its stages, or says won, lost or void; which product it is about must be one that
// there is, and is in the opportunity's name, beside the number that a file may give it.
func Opportunities(o Others) Layout[*sales.Opportunity] {
	stages := map[string][]string{"won": {"closed won", "赢单", "成交"}, "lost": {"closed lost", "输单", "丢单"}, "void": {"无效"}}
	if o.Pipeline != nil {
		for _, s := range o.Pipeline.Stages {
			stages[s.Name] = append(stages[s.Name], s.Name)
		}
	}
	return Layout[*sales.Opportunity]{
		Fields: []Field{
			{Name: "number", Kind: Text, Part: true, Words: []string{"opportunity id", "deal id", "商机编号"}},
			{Name: "name", Kind: Text, Words: []string{"opportunity", "opportunity name", "deal name", "商机", "商机名称"}},
			{Name: "customer", Kind: Reference, Names: o.Customers, Words: []string{"account", "account name", "company", "客户", "客户名称", "公司"}},
			{Name: "product", Kind: Reference, Names: o.Products, Part: true, Words: []string{"product name", "产品", "产品名称"}},
			{Name: "stage", Kind: Enum, Part: true, Values: stages, Words: []string{"deal stage", "sales stage", "status", "阶段", "商机阶段", "销售阶段"}},
			{Name: "amount", Kind: Money, Words: []string{"close value", "deal value", "value", "revenue", "金额", "商机金额", "成交金额"}},
			{Name: "currency", Kind: Text, Words: []string{"币种", "货币"}},
			{Name: "created_at", Kind: Day, Words: append([]string{"engage date", "open date"}, createdWords...)},
			{Name: "closed_at", Kind: Day, Words: []string{"close date", "closed", "成交日期", "关闭日期", "结束日期"}},
			{Name: "close_by", Kind: Day, Words: []string{"expected close date", "预计成交日期"}},
			{Name: "lost_reason", Kind: Enum, Words: []string{"loss reason", "输单原因"}, Values: map[string][]string{
				"price": {"价格"}, "competitor": {"竞争对手"}, "no_budget": {"没有预算"}, "no_answer": {"没有回应"}, "other": {"其他"},
			}},
			owner(o),
		},
		Finish: func(x *sales.Opportunity, get func(string) string) []Reason {
			if x.Name.IsEmpty() {
				x.Name = crm.NewText(strings.TrimSpace(get("product") + " " + get("number")))
			}
			if o.Pipeline == nil || len(o.Pipeline.Stages) == 0 {
				return []Reason{{Field: "pipeline", Rule: "required"}}
			}
			x.Pipeline = o.Pipeline.ID
			if x.Version > 0 { // an import moves no opportunity: acts do
				return nil
			}
			stage, ok := wordOf(stages, get("stage"))
			if !ok {
				return []Reason{{Field: "stage", Rule: "required"}}
			}
			x.State, x.StageSince = sales.OpportunityOpen, x.CreatedAt
			switch stage {
			case "won", "lost", "void":
				last := o.Pipeline.Stages[len(o.Pipeline.Stages)-1]
				x.State, x.Stage, x.Probability = sales.OpportunityState(stage), last.Name, last.Probability
				if x.ClosedAt.IsZero() {
					return []Reason{{Field: "closed_at", Rule: "required"}}
				}
				if x.State == sales.OpportunityLost && x.LostReason == "" {
					x.LostReason = sales.LostOther
				}
			default:
				s, _ := o.Pipeline.Stage(stage)
				x.Stage, x.Probability = s.Name, s.Probability
			}
			return nil
		},
	}
}

// Employees is the layout of employees, who are invited. One without an address has one of the name at the domain that the mapping gives by default.
func Employees(o Others) Layout[*crm.Employee] {
	return Layout[*crm.Employee]{
		Fields: []Field{
			{Name: "name", Kind: Text, Words: []string{"employee", "full name", "sales agent", "姓名", "员工", "员工姓名"}},
			{Name: "email", Kind: Text, Words: emailWords},
			{Name: "domain", Kind: Text, Part: true, Words: []string{"mail domain", "邮箱域名"}},
			{Name: "phone", Kind: Text, Words: phoneWords},
			{Name: "team", Kind: Text, Part: true, Words: []string{"regional office", "region", "department", "团队", "部门", "区域"}},
			{Name: "owner", Kind: Reference, Names: o.Employees, Words: []string{"manager", "superior", "上级", "经理", "直属上级"}},
			{Name: "role", Kind: Text, Part: true, Words: []string{"roles", "角色"}},
			{Name: "joined", Kind: Day, Words: []string{"joined at", "hire date", "入职日期"}},
		},
		New: func() *crm.Employee { return &crm.Employee{State: crm.EmployeeInvited} },
		Finish: func(e *crm.Employee, get func(string) string) []Reason {
			if domain := get("domain"); domain != "" && e.Email.IsEmpty() {
				e.Email = crm.NewText(strings.Join(strings.Fields(strings.ToLower(e.Name.Expose())), ".") + "@" + domain)
			}
			if team := get("team"); team != "" {
				if !strings.HasPrefix(team, "/") {
					team = "/" + plain(team) + "/"
				}
				e.Team = team
			}
			if role := get("role"); role != "" {
				e.Roles = strings.Fields(strings.NewReplacer(",", " ", ";", " ").Replace(role))
			}
			return nil
		},
	}
}
