//! Syft agents at the gateway of a node: clients in Python on the libraries of the original.
//!
//! Where each trap of `proto-specs/syft.md` is tested; names without a path are tests in this
//! folder, the others unit tests in `node/src`.
//!
//! | trap (section) | test |
//! | --- | --- |
//! | `from` is enforced (6.1, 10) | `nobody_writes_under_the_name_of_another` |
//! | `id`, `status`, flags of clients are dropped (6.1) | `what_a_client_claims_of_its_frame_is_left_behind`; `letter`: `what_is_signed_is_relayed_to_the_letter_and_what_a_client_adds_is_not` |
//! | several sessions, none evicted (6.2) | `all_connections_of_a_user_get_everything_and_none_is_evicted` |
//! | a full socket costs its connection, no message (6.2) | `who_never_reads_loses_his_own_connection_and_nothing_else` |
//! | stored before said (6.3) | `state`: `a_letter_is_accepted_once_it_is_on_disk_and_not_before` |
//! | delivered is not read (6.3) | `delivered_and_read_are_two_events` |
//! | a backlog over 256 (6.3) | `who_was_away_gets_every_message_in_order_and_once` |
//! | broadcasts once, not to the sender (6.3, 13.6) | `a_broadcast_reaches_everybody_else_once_also_who_is_away` |
//! | limits of count, bytes, age (6.3) | `state`: `a_full_mailbox_…`, `a_mailbox_holds_…`, `a_letter_that_waits_too_long_is_dropped_counted_and_its_sender_told`; `a_message_that_nobody_fetches_in_time_is_dropped` |
//! | replay (6.4, 10) | `a_message_that_is_sent_again_comes_once` |
//! | close code at the end (6.5) | `an_orderly_shutdown_says_goodbye` |
//! | stored, then live, no gap (6.6) | `what_waits_and_what_comes_meanwhile_is_one_row_in_order` |
//! | users, descriptions, letters, secret outlive a restart (6.7, 13.8) | `a_token_survives_a_restart_and_ends_with_a_logout`, `descriptions_and_presence_are_shown`, `who_was_away_…` |
//! | frames of 1 MiB, 1009 beyond (6, 13.9) | `the_largest_frame_passes_and_one_byte_more_closes` |
//! | bad frames are ignored (6) | `what_is_no_message_is_ignored_and_the_connection_stays` |
//! | a burst of 40 (6, 13.9) | `forty_messages_at_once_all_arrive_in_order` |
//! | pings under throttling (6, 13.2) | `a_flood_waits_and_what_is_beyond_is_told_while_pings_are_answered` |
//! | wrong lengths never reach a Go client (2, 10) | `letter`: `what_would_harm_a_reader_is_not_relayed`; `a_wrong_signature_an_unknown_recipient_and_a_bad_envelope_are_told` |
//! | a sixth member ends a Go client (2) | `envelope`: `a_sixth_member_is_refused_however_it_is_written` |
//! | and so does a frame beyond 1 MiB with its number (6) | `letter`: `no_frame_is_longer_with_its_number_than_readers_take` |
//! | unknown recipient (6) | the same |
//! | double slashes (5) | `a_client_whose_url_ends_with_a_slash_gets_in` |
//! | ids are decoded once (5, 13.3) | `two_users_register_see_each_other_and_write`; `gateway::syft::http`: `a_path_is_decoded_once` |
//! | ids with bars and slashes, reserved names (10) | `the_http_surface_answers_as_the_old_server_did`; `user`: `ids_that_would_be_ambiguous_or_mean_something_else_are_refused` |
//! | registration again (5) | `two_users_register_…`, `the_http_surface_…`, `where_nobody_may_register_the_operator_lets_people_in` |
//! | tokens beyond 24 h (9) | `after_its_end_a_token_is_good_for_ws_alone_and_not_for_ever`; `tokens`: `a_token_ends_after_a_day_and_for_ws_thirty_days_later` |
//! | who reconnects is let in whatever failed (9) | `wrong_tokens_are_limited_and_lock_out_nobody_who_has_a_good_one` |
//! | header token, logout, no token in logs (10) | `a_token_survives_…`, `after_its_end_…` |
//! | revoked on a change of key (10) | `a_stolen_token_speaks_for_its_user_only_and_ends_with_him` |
//! | challenge: once, 60 s, several (10) | `a_challenge_is_good_once_and_only_for_its_user`; `gateway`: `a_challenge_ends_after_its_time`, `a_second_device_…` |
//! | signing what is no challenge (10) | `a_server_gets_no_signature_over_anything_but_a_challenge`; `gateway`: `a_node_signs_no_challenge_that_might_be_something_else` |
//! | the login challenge names no server (10) | `a_server_cannot_log_in_at_another_one_as_the_node` |
//! | not the libp2p key (10) | `a_node_writes_and_reads_as_a_user_of_a_foreign_server` |
//! | keys of servers are pinned (10) | `state`: `the_first_key_that_a_server_names_counts_until_a_person_takes_another` |
//! | the forward flag (8) | `forward`; `letter`: `a_broadcast_that_asks_agents_for_something_is_refused` |
//! | answers and questions that do not belong together (8) | `gateway::syft::forward`: `a_late_answer_is_not_that_of_the_next_request` |
//! | two candidates, 4 ms grid (3) | `message` and `time`: against the vectors |
//! | a form that each reader verifies (3) | `clients_of_other_languages_verify_what_their_signatures_allow`; `message`: `messages_reach_each_client_in_a_form_that_it_verifies_…` |

mod crowd;
mod forward;
mod gateway;
mod hostile;
mod limits;
mod mesh;
mod operator;
mod relay;
mod server;
mod tls;
