package sales

import (
	"strconv"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// ProductState says whether a product is sold.
type ProductState string

// The states of a product.
const (
	ProductActive       ProductState = "active"
	ProductDiscontinued ProductState = "discontinued" // may be taken up again
)

// ProductLifecycle returns the transition table of products.
func ProductLifecycle() crm.Lifecycle[ProductState] {
	return crm.NewLifecycle(crm.TypeProduct, []ProductState{ProductActive, ProductDiscontinued}, map[ProductState][]ProductState{
		ProductActive: {ProductDiscontinued}, ProductDiscontinued: {ProductActive},
	})
}

// Product is something that is bought or sold. It holds no personal data.
type Product struct {
	crm.Meta[Product]
	SKU      string       `protect:"internal,indexed" json:"sku"` // the stock keeping unit: our number of it
	Name     string       `protect:"public,indexed" json:"name"`
	Unit     string       `protect:"public" json:"unit"` // piece, hour, kg
	Category string       `protect:"internal,indexed" json:"category"`
	Price    int64        `protect:"internal" json:"price"`    // minor units for one unit, without tax, where no price list has another
	Currency string       `protect:"internal" json:"currency"` // ISO 4217
	Tax      int64        `protect:"internal" json:"tax"`      // basis points
	Stocked  bool         `protect:"internal" json:"stocked"`  // kept in warehouses; a service is not
	MinStock int64        `protect:"internal" json:"min_stock"`
	State    ProductState `protect:"internal,indexed" json:"state"`
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (p *Product) Validate() error {
	v := crm.Checks{Type: crm.TypeProduct}
	v.Team(p.Team)
	v.Str("sku", p.SKU, true, 60)
	v.Str("name", p.Name, true, crm.MaxName)
	v.Str("unit", p.Unit, true, 40)
	v.Str("category", p.Category, false, crm.MaxName)
	v.NotNegative("price", p.Price)
	v.Currency("currency", p.Currency, true)
	v.Range("tax", p.Tax, 0, money.Basis)
	v.NotNegative("min_stock", p.MinStock)
	if p.MinStock > 0 && !p.Stocked {
		v.Add("min_stock", "mismatch")
	}
	v.OneOf("state", string(p.State), string(ProductActive), string(ProductDiscontinued))
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become p: the number by which others know it and its currency stay.
func (p *Product) CheckUpdate(prev *Product) error {
	v := crm.Checks{Type: crm.TypeProduct}
	v.Unchanged("sku", p.SKU == prev.SKU)
	v.Unchanged("currency", p.Currency == prev.Currency)
	if err := v.Err(); err != nil {
		return err
	}
	return ProductLifecycle().CheckUpdate(prev.State, p.State)
}

// Price is what one product costs from a quantity on.
type Price struct {
	Product   crm.ID[Product] `json:"product"`
	From      int64           `json:"from,omitempty"` // thousandths; 0: any quantity
	UnitPrice int64           `json:"unit_price"`     // minor units, without tax
}

// PriceList has the prices of one currency for a time, for all or for one region, channel or kind of customer.
type PriceList struct {
	crm.Meta[PriceList]
	Name     string    `protect:"internal,indexed" json:"name"`
	Segment  string    `protect:"internal,indexed" json:"segment"` // for whom; "" for all
	Currency string    `protect:"internal" json:"currency"`        // ISO 4217
	Starts   time.Time `protect:"internal,indexed" json:"starts"`  // zero: always has
	Ends     time.Time `protect:"internal,indexed" json:"ends"`    // the first moment at which it no longer counts; zero: none
	Prices   []Price   `protect:"internal" json:"prices"`
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (l *PriceList) Validate() error {
	v := crm.Checks{Type: crm.TypePriceList}
	v.Team(l.Team)
	v.Str("name", l.Name, true, crm.MaxName)
	v.Str("segment", l.Segment, false, crm.MaxName)
	v.Currency("currency", l.Currency, true)
	v.Time("starts", l.Starts)
	v.Time("ends", l.Ends)
	v.Order("ends", l.Starts, l.Ends)
	if len(l.Prices) > 5000 {
		v.Add("prices", "too_long")
	}
	type key struct {
		product crm.ID[Product]
		from    int64
	}
	seen := map[key]bool{}
	for i, p := range l.Prices {
		at := "prices." + strconv.Itoa(i)
		v.Required(at+".product", p.Product.IsZero())
		v.NotNegative(at+".from", p.From)
		v.NotNegative(at+".unit_price", p.UnitPrice)
		if k := (key{p.Product, p.From}); seen[k] {
			v.Add(at, "repeated")
		} else {
			seen[k] = true
		}
	}
	return v.Err()
}

// Live tells whether the list counts at a time.
func (l *PriceList) Live(at time.Time) bool {
	return !l.Deleted && !at.Before(l.Starts) && (l.Ends.IsZero() || at.Before(l.Ends))
}

// UnitPrice returns the price of a product for a quantity in thousandths at a time, in minor units of the list's currency: that of the
// largest quantity that is reached. ok is false when the list has none.
func (l *PriceList) UnitPrice(product crm.ID[Product], quantity int64, at time.Time) (price int64, ok bool) {
	if !l.Live(at) {
		return 0, false
	}
	from := int64(-1)
	for _, p := range l.Prices {
		if p.Product == product && p.From <= quantity && p.From > from {
			price, from, ok = p.UnitPrice, p.From, true
		}
	}
	return price, ok
}

// Line makes a line of a quote for a quantity in thousandths at the price of the first of the lists that has one in the currency, else at the
// product's own. A *crm.InvalidError has the rule bad_reference for a product that is not sold, negative for the quantity, and mismatch when
// there is no price in that currency.
func (p *Product) Line(quantity int64, currency string, at time.Time, lists ...*PriceList) (crm.Line, error) {
	v := crm.Checks{Type: crm.TypeProduct}
	if p.Deleted || p.State != ProductActive {
		v.Add("product", "bad_reference")
	}
	v.NotNegative("quantity", quantity)
	price, ok := p.Price, p.Currency == currency
	for _, l := range lists {
		if n, has := l.UnitPrice(p.ID, quantity, at); has && l.Currency == currency {
			price, ok = n, true
			break
		}
	}
	if !ok {
		v.Add("currency", "mismatch")
	}
	if err := v.Err(); err != nil {
		return crm.Line{}, err
	}
	return crm.Line{
		Product: p.Name, Item: p.ID.UUID(), Quantity: quantity / money.Unit, Milli: quantity % money.Unit, UnitPrice: price, Tax: p.Tax,
	}, nil
}
