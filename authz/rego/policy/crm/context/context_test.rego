package crm.context_test

import data.crm.context

# 2026-11-26, a Thursday, 12:00 UTC.
noon := 1795694400000000000

settings := {
	"hours": {
		"actions": ["export"], "types": ["keys"], "roles": ["admin"],
		"days": ["Thursday"], "from": "07:00", "to": "22:00",
	},
	"network": {"actions": ["export"], "types": ["keys"], "roles": ["admin"], "trusted": ["10.0.0.0/8"]},
	"device": {"actions": ["export"], "types": ["keys"], "roles": ["admin"]},
	"regions": {"export": ["EU"], "erase": []},
}

asks(action, type, role) := {
	"subject": {"id": "e1", "roles": [role], "grants": [], "zone": "UTC", "region": "EU", "device": "managed"},
	"action": action,
	"resource": {"type": type},
	"environment": {"time": noon, "address": "10.1.2.3"},
}

elsewhere(action, type, role) := json.patch(asks(action, type, role), [
	{"op": "replace", "path": "/subject/region", "value": "US"},
	{"op": "replace", "path": "/subject/device", "value": ""},
	{"op": "replace", "path": "/environment", "value": {"time": noon + 43200000000000, "address": "192.0.2.1"}},
])

all_four if {
	context.hours
	context.network
	context.device
	context.region
}

test_allow_as_shipped[action] if {
	some action in data.settings.actions
	all_four with input as elsewhere(action, "customer", "sales")
}

test_allow_demanded_and_met[name] if {
	some name, ask in {
		"action": asks("export", "customer", "sales"),
		"type": asks("read", "keys", "sales"),
		"role": asks("read", "customer", "admin"),
	}
	all_four with input as ask with data.settings.context as settings
}

test_allow_not_demanded if {
	all_four with input as elsewhere("read", "customer", "sales") with data.settings.context as settings
}

test_deny_demanded_and_not_met[name] if {
	some name, ask in {
		"action": elsewhere("export", "customer", "sales"),
		"type": elsewhere("read", "keys", "sales"),
		"role": elsewhere("read", "customer", "admin"),
	}
	not context.hours with input as ask with data.settings.context as settings
	not context.network with input as ask with data.settings.context as settings
	not context.device with input as ask with data.settings.context as settings
}

test_deny_other_region if {
	not context.region with input as elsewhere("export", "customer", "sales") with data.settings.context as settings
}

test_deny_region_of_action_with_none if {
	not context.region with input as asks("erase", "customer", "sales") with data.settings.context as settings
}

test_deny_region_unknown[name] if {
	some name, region in {"empty": "", "null": null}
	ask := json.patch(asks("export", "customer", "sales"), [{"op": "replace", "path": "/subject/region", "value": region}])
	not context.region with input as ask with data.settings.context as settings
	not context.region with input as ask with data.settings.context.regions as {"export": [region]}
}

test_deny_nothing_known[control] if {
	some control in ["hours", "network", "device", "region"]
	ask := {"subject": {"id": "e1", "roles": []}, "action": "export", "resource": {"type": "customer"}, "environment": {}}
	not context[control] with input as ask with data.settings.context as settings
}

test_deny_settings_that_lack_a_list[list] if {
	some list in ["actions", "types", "roles"]
	ask := elsewhere("read", "customer", "sales")
	every control in ["hours", "network", "device"] {
		lacking := json.remove(settings, [concat("/", [control, list])])
		not context[control] with input as ask with data.settings.context as lacking
	}
}

test_deny_settings_of_another_form[name] if {
	some list in ["actions", "types", "roles"]
	some form, value in {"null": null, "word": "nothing", "yes": true}
	name := concat(" ", [list, form])
	ask := elsewhere("read", "customer", "sales")
	every control in ["hours", "network", "device"] {
		patch := {"op": "replace", "path": concat("/", ["", control, list]), "value": value}
		not context[control] with input as ask with data.settings.context as json.patch(settings, [patch])
	}
}

test_deny_settings_missing[control] if {
	some control in ["hours", "network", "device", "region"]
	ask := elsewhere("read", "customer", "sales")
	not context[control] with input as ask with data.settings.context as {}
	not context[control] with input as ask with data.settings.context as {"regions": null}
}

test_deny_missing[control] if {
	some control in ["hours", "network", "device", "region"]
	not context[control] with input as {} with data.settings.context as settings
}
