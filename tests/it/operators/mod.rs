//! Operators: commands, and what they print.

mod as_root;
mod audit;
mod commands;
mod forecast;
mod outputs;
mod pause;
mod steering;
mod terminal;
mod whole_way;
mod wrong_configuration;
