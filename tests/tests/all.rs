//! Whole-program tests: what a person does, with real nodes in processes of their own.

mod cable;
mod clock;
mod command_line;
mod copies;
mod crowds;
mod doctor;
mod embedding;
mod files;
mod foreign;
mod gateways;
mod history;
mod home;
mod iid;
mod kill;
mod log;
mod members;
mod mesh;
mod operate;
mod p2sn;
mod stranger;
mod syft;
mod terminal;
mod update;
mod vouching;
