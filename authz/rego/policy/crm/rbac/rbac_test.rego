package crm.rbac_test

import data.crm.rbac

sales := {"id": "e1", "roles": ["sales"], "team": "/east/1/"}

manager := {"id": "e2", "roles": ["manager"], "team": "/east/"}

customer(owner, team) := {"type": "customer", "owner": owner, "team": team}

asks(subject, action, resource) := {"subject": subject, "action": action, "resource": resource}

permit if rbac.reaches_all

permit if rbac.reaches_team

permit if rbac.reaches_own

permit if rbac.reaches_pool

test_allow_own if rbac.reaches_own with input as asks(sales, "read", customer("e1", "/east/1/"))

test_allow_team_of_manager if rbac.reaches_team with input as asks(manager, "read", customer("e1", "/east/1/"))

test_allow_all_of_admin if {
	subject := {"id": "e9", "roles": ["admin"], "team": ""}
	rbac.reaches_all with input as asks(subject, "delete", customer("e1", "/west/"))
}

test_allow_own_of_manager_by_inheritance if {
	rbac.depths == {"own", "team"} with input as asks(manager, "read", customer("e2", "/west/"))
	rbac.reaches_own with input as asks(manager, "read", customer("e2", "/west/"))
}

test_allow_system if {
	permit with input as asks({"id": "system", "roles": ["system"], "team": ""}, "read", {"type": "account"})
}

test_deny_other_owner if not permit with input as asks(sales, "read", customer("e3", "/east/1/"))

test_deny_owner_missing if not permit with input as asks(sales, "read", {"type": "customer"})

test_deny_no_owner_no_subject[name] if {
	some name, id in {"empty": "", "null": null, "number": 1}
	not permit with input as asks({"id": id, "roles": ["sales"], "team": ""}, "read", customer(id, ""))
}

test_deny_other_team if not permit with input as asks(manager, "read", customer("e3", "/west/1/"))

test_deny_sibling_with_same_beginning if {
	subject := {"id": "e4", "roles": ["manager"], "team": "/east/1/"}
	not permit with input as asks(subject, "read", customer("e3", "/east/10/"))
}

test_deny_team_above if {
	subject := {"id": "e4", "roles": ["manager"], "team": "/east/1/"}
	not permit with input as asks(subject, "read", customer("e3", "/east/"))
}

test_deny_team_not_a_path[name] if {
	some name, team in {"empty": "", "word": "east", "no end": "/east", "no start": "east/", "null": null, "list": ["/"]}
	subject := {"id": "e4", "roles": ["manager"], "team": team}
	not permit with input as asks(subject, "read", customer("e3", "/east/10/"))
}

test_deny_team_without_a_start_and_its_own_records if {
	subject := {"id": "e4", "roles": ["manager"], "team": "east/"}
	not permit with input as asks(subject, "read", customer("e3", "east/1/"))
}

test_deny_record_without_team[name] if {
	some name, team in {"empty": "", "null": null, "number": 1}
	not permit with input as asks(manager, "read", customer("e3", team))
}

test_deny_unknown_role if {
	not permit with input as asks({"id": "e1", "roles": ["root"], "team": "/"}, "read", customer("e1", "/"))
}

test_deny_unknown_action if not permit with input as asks(sales, "shred", customer("e1", "/east/1/"))

test_deny_unknown_type if not permit with input as asks(sales, "read", {"type": "payroll", "owner": "e1"})

test_deny_no_roles if {
	not permit with input as asks({"id": "e1", "roles": [], "team": "/"}, "read", customer("e1", "/"))
}

test_deny_missing if not permit with input as {}

member := {"id": "e1", "roles": ["sales"], "team": "/east/1/", "pools": ["p1", "p2"]}

free(pool) := {"type": "customer", "owner": "", "team": "", "pool": pool}

test_allow_free_in_a_pool[action] if {
	some action in ["browse", "claim"]
	rbac.reaches_pool with input as asks(member, action, free("p2"))
}

test_allow_assignment_in_a_pool if {
	rbac.reaches_pool with input as asks(object.union(member, {"roles": ["manager"]}), "assign", free("p1"))
}

test_deny_another_pool[action] if {
	some action in ["browse", "claim"]
	not permit with input as asks(member, action, free("p3"))
}

test_deny_what_is_not_free if {
	not permit with input as asks(member, "claim", {"type": "customer", "owner": "e2", "team": "/west/", "pool": ""})
	not permit with input as asks(member, "claim", {"type": "customer", "owner": "e1", "team": "/west/", "pool": ""})
	not permit with input as asks(member, "claim", {"type": "customer", "owner": "", "team": ""})
}

test_deny_pool_by_another_depth[action] if {
	some action in ["list", "read", "search", "update", "release", "transfer", "enter", "lock", "assign"]
	not permit with input as asks(member, action, free("p1"))
}

test_deny_pool_without_a_grant if {
	not permit with input as asks(object.union(member, {"roles": ["marketing"]}), "claim", free("p1"))
	not permit with input as asks(member, "claim", object.union(free("p1"), {"type": "quote"}))
}

test_deny_pools[name] if {
	some name, pools in {
		"none": [], "null": null, "a word": "p1", "others": ["p3", "p10"],
		"a list": [["p1"]], "nothing": [""],
	}
	not permit with input as asks(object.union(member, {"pools": pools}), "claim", free("p1"))
}

test_deny_null_on_both_sides[name] if {
	some name, id in {"null": null, "empty": "", "number": 1}
	not permit with input as asks(object.union(member, {"pools": [id]}), "claim", free(id))
}

# What follows looks at the shipped grants themselves.

test_deny_analyst_everything_but_numbers if {
	every type, actions in data.settings.grants.analyst {
		every action, depth in actions {
			[type, action, depth] in (requests | {[type, "aggregate", "all"]})
		}
	}
}

test_deny_analyst_records[action] if {
	some action in ["list", "read", "search", "create", "update", "delete", "reveal", "export", "history"]
	not permit with input as asks({"id": "e1", "roles": ["analyst"], "team": "/"}, action, customer("e1", "/"))
}

requests contains [type, action, "own"] if {
	some type in {"delegation", "sharing", "emergency", "export"}
	some action in {"create", "list", "read"}
}

requests contains [type, "delete", "own"] if some type in {"delegation", "sharing"}

test_allow_analyst_numbers if {
	permit with input as asks({"id": "e1", "roles": ["analyst"], "team": ""}, "aggregate", customer("e2", "/"))
}

test_allow_requests_of_everybody[role] if {
	some role in (object.keys(data.settings.inherits) - {"system"})
	every type in {"delegation", "sharing", "emergency", "export"} {
		every action in {"create", "list", "read"} {
			permit with input as asks({"id": "e1", "roles": [role], "team": ""}, action, {"type": type, "owner": "e1"})
		}
	}
}

test_deny_requests_in_another_name[role] if {
	some role in object.keys(data.settings.inherits)
	every type in {"delegation", "sharing", "emergency", "export"} {
		subject := {"id": "e1", "roles": [role], "team": "/"}
		not permit with input as asks(subject, "create", {"type": type, "owner": "e2", "team": "/"})
	}
}

test_deny_share_of_others_records[role] if {
	some role, types in data.settings.grants
	every _, actions in types {
		object.get(actions, "share", "own") == "own"
	}
}

test_deny_approval_by_whom_it_is_not_for[role] if {
	some role in (object.keys(data.settings.inherits) - {"admin", "manager"})
	every type in {"emergency", "export"} {
		subject := {"id": "e1", "roles": [role], "team": "/"}
		not permit with input as asks(subject, "approve", {"type": type, "owner": "e1", "team": "/"})
	}
}

test_allow_approval_of_the_team_requests if {
	permit with input as asks(manager, "approve", {"type": "emergency", "owner": "e1", "team": "/east/1/"})
	permit with input as asks(manager, "certify", {"type": "account", "owner": "e1", "team": "/east/1/"})
	not permit with input as asks(manager, "approve", {"type": "emergency", "owner": "e1", "team": "/west/"})
	not permit with input as asks(manager, "certify", {"type": "account", "owner": "e1", "team": "/west/"})
}

# Somebody with a role, and a record of their own.
holder(role) := {"id": "e1", "roles": [role], "team": "/"}

its(type) := {"type": type, "owner": "e1", "team": "/"}

test_deny_hands_of_others[action] if {
	some action in ["release", "transfer", "enter", "lock"]
	permit with input as asks(sales, action, customer("e1", "/east/1/"))
	not permit with input as asks(sales, action, customer("e3", "/east/1/"))
	permit with input as asks(manager, action, customer("e3", "/east/1/"))
	not permit with input as asks(manager, action, customer("e3", "/west/"))
}

test_deny_recycling_to_people[role] if {
	some role in (object.keys(data.settings.inherits) - {"system"})
	every type in {"customer", "lead"} {
		not permit with input as asks(holder(role), "recycle", its(type))
	}
}

test_deny_purge[role] if {
	some role in (object.keys(data.settings.inherits) - {"admin", "system"})
	every type, _ in data.settings.grants.admin {
		not permit with input as asks(holder(role), "purge", its(type))
	}
}

# What can be deleted can be purged, by the administrator and when its time is over; what cannot be deleted cannot.
# A person goes with the last record that names them.
test_allow_purge_of_what_is_deleted if {
	deleted := {type |
		some types in data.settings.grants
		some type, actions in types
		"delete" in object.keys(actions)
	}
	deleted | {"person"} == {type | data.settings.grants.system[type].purge == "all"}
	deleted | {"person"} == {type | data.settings.grants.admin[type].purge == "all"} | swept
}

# What imports and merges keep for their undo, rejected rows, and the list of the erased go when their time is over.
# Nobody takes them away before.
swept := {"import", "kept", "merge", "suppression"}

# A person is erased by the administrator, for a reason and with a second person,
# and by the program when the grace is over.
test_deny_erasing_a_person[role] if {
	some role in (object.keys(data.settings.inherits) - {"admin", "system"})
	every action in {"erase", "purge"} {
		not permit with input as asks(holder(role), action, {"type": "person"})
	}
}

# The list of the erased is written by the program alone.
test_deny_writing_the_list_of_the_erased[role] if {
	some role in (object.keys(data.settings.inherits) - {"system"})
	every action in {"create", "update", "import"} {
		not permit with input as asks(holder(role), action, its("suppression"))
	}
}

test_deny_reading_the_list_of_the_erased[role] if {
	some role in (object.keys(data.settings.inherits) - {"admin", "system"})
	every action in {"list", "read", "search", "export"} {
		not permit with input as asks(holder(role), action, its("suppression"))
	}
}

# A manager may be the second person, and no more.
test_deny_approving_an_erasure[role] if {
	some role in (object.keys(data.settings.inherits) - {"admin", "manager"})
	not permit with input as asks(holder(role), "approve", {"type": "person"})
}

test_allow_approving_an_erasure[role] if {
	some role in {"admin", "manager"}
	permit with input as asks(holder(role), "approve", {"type": "person"})
}

test_allow_erasing_a_person[role] if {
	some role in {"admin", "system"}
	permit with input as asks(holder(role), "erase", {"type": "person"})
}

test_deny_taking_away_what_undoes[role] if {
	some role in (object.keys(data.settings.inherits) - {"system"})
	every type in swept {
		every action in {"delete", "restore", "purge"} {
			not permit with input as asks(holder(role), action, its(type))
		}
	}
}

# The history of who had a record, a ledger and numbers are not rewritten.
test_deny_change_of_what_is_appended[role] if {
	some role in object.keys(data.settings.inherits)
	every type in {"ownership", "movement"} {
		every action in {"update", "delete", "restore", "purge", "approve", "transfer"} {
			not permit with input as asks(holder(role), action, its(type))
		}
	}
}

test_allow_ownership_by_who_claims if {
	permit with input as asks(sales, "create", {"type": "ownership", "owner": "e1", "team": "/east/1/"})
	not permit with input as asks(sales, "create", {"type": "ownership", "owner": "e3", "team": "/east/1/"})
	permit with input as asks(manager, "create", {"type": "ownership", "owner": "e3", "team": "/east/1/"})
	not permit with input as asks(manager, "create", {"type": "ownership", "owner": "e3", "team": "/west/"})
}

test_deny_ownership_by_others[role] if {
	some role in ["marketing", "support", "finance", "auditor", "analyst"]
	not permit with input as asks(holder(role), "create", its("ownership"))
}
