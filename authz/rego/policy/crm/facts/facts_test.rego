package crm.facts_test

import data.crm.facts

with_roles(roles) := {"id": "e1", "roles": roles, "grants": []}

hours := {"actions": ["export"], "types": [], "roles": [], "days": ["Thursday"], "from": "07:00", "to": "22:00"}

# 2026-11-26, a Thursday, 12:00 UTC.
noon := 1795694400000000000

test_allow_roles_of_the_session if {
	facts.roles == {"support"} with input as {"subject": with_roles(["support"])}
}

test_allow_inherited_roles if {
	facts.roles == {"manager", "sales"} with input as {"subject": with_roles(["manager"])}
}

test_allow_role_of_the_program if {
	facts.roles == {"system"} with input as {"subject": {"id": "system", "roles": ["system"]}}
}

test_deny_unknown_roles[name] if {
	some name, roles in {
		"unknown": ["root"], "none": [], "null": [null],
		"number": [1], "nested": [["admin"]], "word": "admin",
	}
	facts.roles == set() with input as {"subject": with_roles(roles)}
}

test_deny_roles_missing if facts.roles == set() with input as {"subject": {"id": "e1"}}

test_deny_role_that_was_not_activated if {
	facts.roles == set() with input as {
		"subject": {"id": "e1", "roles": [], "grants": [{"role": "admin", "until": noon + 1}]},
		"environment": {"time": noon},
	}
}

certified(grants, moment) := {
	"subject": {"id": "e1", "roles": ["sales"], "grants": grants},
	"environment": {"time": moment},
}

test_allow_certified_role if {
	facts.roles == {"sales"} with input as certified([{"role": "sales", "until": noon + 1}], noon)
		with data.settings.certified_roles as ["sales"]
}

test_allow_role_that_takes_no_certificate if {
	facts.roles == {"sales"} with input as certified([], noon) with data.settings.certified_roles as ["admin"]
}

test_deny_uncertified_role[name] if {
	some name, grants in {
		"none": [],
		"ended": [{"role": "sales", "until": noon - 1}],
		"ends now": [{"role": "sales", "until": noon}],
		"another role": [{"role": "support", "until": noon + 1}],
		"no end": [{"role": "sales"}],
		"null": [{"role": "sales", "until": null}],
		"word": [{"role": "sales", "until": "tomorrow"}],
		"list": [{"role": "sales", "until": [noon]}],
	}
	facts.roles == set() with input as certified(grants, noon) with data.settings.certified_roles as ["sales"]
}

test_deny_certified_at_no_time[name] if {
	some name, moment in {"null": null, "no": false, "word": "now"}
	facts.roles == set() with input as certified([{"role": "sales", "until": noon}], moment)
		with data.settings.certified_roles as ["sales"]
}

test_deny_certified_time_missing if {
	facts.roles == set() with input as {"subject": {
		"id": "e1", "roles": ["sales"],
		"grants": [{"role": "sales", "until": noon}],
	}}
		with data.settings.certified_roles as ["sales"]
}

test_deny_certified_settings_of_another_form[name] if {
	some name, demanded in {"null": null, "word": "sales", "object": {"sales": true}}
	facts.roles == set() with input as certified([], noon) with data.settings.certified_roles as demanded
}

test_allow_one_of_exclusive_roles if {
	facts.exclusive == set() with input as {"subject": with_roles(["sales"])}
		with data.settings.exclusive_roles as [["sales", "finance"]]
}

test_deny_exclusive_roles if {
	facts.exclusive == {{"sales", "finance"}} with input as {"subject": with_roles(["finance", "sales", "support"])}
		with data.settings.exclusive_roles as [["sales", "finance"]]
}

test_deny_exclusive_by_inheritance if {
	facts.exclusive == {{"sales", "finance"}} with input as {"subject": with_roles(["manager", "finance"])}
		with data.settings.exclusive_roles as [["sales", "finance"]]
}

test_deny_exclusive_though_uncertified if {
	facts.exclusive == {{"sales", "finance"}} with input as {"subject": with_roles(["sales", "finance"])}
		with data.settings.exclusive_roles as [["sales", "finance"]]
		with data.settings.certified_roles as ["finance"]
}

test_allow_level if facts.level == 2 with input as {"subject": {"level": 2}}

test_deny_level[name] if {
	some name, level in {"negative": -1, "null": null, "word": "9", "yes": true, "list": [9]}
	not facts.level with input as {"subject": {"level": level}}
}

test_deny_level_missing if not facts.level with input as {"subject": {}}

test_allow_compartments if facts.compartments == {"vip"} with input as {"subject": {"compartments": ["vip", "vip"]}}

test_deny_compartments[name] if {
	some name, compartments in {"none": [], "null": null, "word": "vip", "list of null": [null]}
	facts.compartments == set() with input as {"subject": {"compartments": compartments}}
}

test_allow_region if facts.region == "EU" with input as {"subject": {"region": "EU"}}

test_deny_region[name] if {
	some name, region in {"empty": "", "null": null, "number": 1, "list": ["EU"]}
	not facts.region with input as {"subject": {"region": region}}
}

test_allow_purpose if {
	facts.purpose == "sales" with input as {"environment": {"purpose": "sales"}}
	facts.purpose == "" with input as {"environment": {"purpose": ""}}
}

test_deny_purpose[name] if {
	some name, purpose in {"null": null, "number": 1, "list": ["sales"]}
	not facts.purpose with input as {"environment": {"purpose": purpose}}
}

at(moment, zone) := {"subject": {"zone": zone}, "environment": {"time": moment}}

hour := 3600000000000

test_allow_in_hours[name] if {
	some name, ask in {
		"noon": at(noon, "UTC"),
		"from": at(noon - (5 * hour), "UTC"),
		"last minute": at((noon + (10 * hour)) - 1, "UTC"),
		"ahead of UTC": at(noon - (11 * hour), "Asia/Shanghai"),
		"behind UTC": at(noon + (14 * hour), "America/New_York"),
	}
	facts.in_hours with input as ask with data.settings.context.hours as hours
}

test_deny_out_of_hours[name] if {
	some name, ask in {
		"night": at(noon + (11 * hour), "UTC"),
		"to": at(noon + (10 * hour), "UTC"),
		"before": at((noon - (5 * hour)) - 1, "UTC"),
		"another day": at(noon + (24 * hour), "UTC"),
		"night there": at(noon + (5 * hour), "Asia/Shanghai"),
		"no zone": at(noon, ""),
		"the server's zone": at(noon, "Local"),
		"unknown zone": at(noon, "Mars/Olympus"),
		"null zone": at(noon, null),
		"null time": at(null, "UTC"),
		"word time": at("noon", "UTC"),
		"time missing": {"subject": {"zone": "UTC"}, "environment": {}},
		"zone missing": {"subject": {}, "environment": {"time": noon}},
	}
	not facts.in_hours with input as ask with data.settings.context.hours as hours
}

test_deny_hours_over_midnight if {
	over := object.union(hours, {"from": "22:00", "to": "07:00"})
	not facts.in_hours with input as at(noon + (11 * hour), "UTC") with data.settings.context.hours as over
}

test_deny_hours_that_nobody_demands if {
	unused := object.union(hours, {"actions": []})
	not facts.in_hours with input as at(noon, "UTC") with data.settings.context.hours as unused
}

from(address) := {"environment": {"address": address}}

test_allow_trusted_network[address] if {
	some address in ["10.1.2.3", "2001:db8::7"]
	facts.trusted_network with input as from(address)
		with data.settings.context.network.trusted as ["10.0.0.0/8", "2001:db8::/32"]
}

test_deny_other_network[name] if {
	some name, address in {
		"other": "192.0.2.1",
		"other of IPv6": "2001:db9::1",
		"mapped": "::ffff:192.0.2.1",
		"empty": "",
		"null": null,
		"word": "localhost",
		"whole range": "0.0.0.0/0",
	}
	not facts.trusted_network with input as from(address)
		with data.settings.context.network.trusted as ["10.0.0.0/8", "2001:db8::/32"]
}

test_deny_network_unknown if {
	not facts.trusted_network with input as {"environment": {}}
	not facts.trusted_network with input as from("10.1.2.3") with data.settings.context.network.trusted as []
}

test_allow_managed_device if facts.managed_device with input as {"subject": {"device": "managed"}}

test_deny_other_device[name] if {
	some name, device in {"empty": "", "other": "private", "case": "Managed", "null": null, "yes": true}
	not facts.managed_device with input as {"subject": {"device": device}}
}

test_deny_device_missing if not facts.managed_device with input as {"subject": {}}
